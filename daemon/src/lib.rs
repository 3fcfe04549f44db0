//! `airflowd`: the local daemon in front of serverless Airflow.
//!
//! The way through it: [`listeners`] let requests in, who need the [`token`] on a port; [`http`] answers them; the
//! [`registry`] records what the user wants of environments, the [`background`] reconcilers bring it to Modal in
//! [steps](background::steps); [`airflow`] does what people do with a deployed environment; [`watcher`] uploads what is
//! saved in watched folders; [`runtime`] is the Python side on this machine; [`modal`] is where environments run;
//! [`store`] is the registry on disk; [`lifecycle`] starts and stops it all, [`notify`] tells the service manager, and
//! [`logging`] is where all of them write to. Each module uses only those below it; a test has the order.

pub mod airflow;
pub mod background;
mod backoff;
mod base;
pub mod diagnostics;
pub mod error;
pub mod events;
pub mod http;
pub mod lifecycle;
pub mod listeners;
mod locks;
pub mod logging;
pub mod loopback;
pub mod metrics;
pub mod modal;
mod model;
pub mod notify;
mod private_file;
pub mod progress;
pub mod registry;
mod regular_file;
pub mod report;
pub mod runtime;
pub mod settings;
pub mod store;
pub mod token;
pub mod vault;
pub mod watcher;

/// What the daemon deploys; `modal_functions/requirements.in` pins the same.
pub const AIRFLOW_VERSION: &str = "3.3.2";
pub const MODAL_VERSION: &str = "1.6.4";
