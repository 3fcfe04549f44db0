//! `airflowd`: the local daemon in front of serverless Airflow.
//!
//! An overview: [`listeners`] accept requests, which need the [`token`] on a port; [`http`] handles them; the
//! [`registry`] records the desired state of environments, and the [`background`] reconcilers apply it to Modal in
//! [steps](background::steps); [`airflow`] has the operations on a deployed environment; [`watcher`] syncs watched
//! folders; [`runtime`] is the Python side on this machine; [`modal`] is where environments run; [`store`] is the
//! registry on disk; [`lifecycle`] starts and stops everything, [`notify`] reports to the service manager, and
//! [`logging`] sets up the log. Each module uses only those below it; a test checks the order.

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

/// The deployed versions; `modal_functions/requirements.in` pins the same.
pub const AIRFLOW_VERSION: &str = "3.3.2";
pub const MODAL_VERSION: &str = "1.6.4";
