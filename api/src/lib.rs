//! Wire types of the `airflowd` REST API: what the daemon answers, the CLI sends and the OpenAPI document describes.
//!
//! This crate does no I/O. Airflow's nouns keep the field names of Airflow's own REST API (`dag_id`, `dag_run_id`,
//! `logical_date`, `try_number`, …), so that scripts can move between the two.
//!
//! - [`environment`], [`config`]: an environment and its state, and its configuration
//! - [`airflow_options`]: the options of `airflow.cfg` that a configuration can have
//! - [`operation`]: long work with steps that can be followed
//! - [`event`]: what has happened, as a stream
//! - [`dag`]: DAG files and the DAGs that the scheduler found in them
//! - [`run`]: DAG runs, task instances and their logs
//! - [`moment`]: points in time as people write them
//! - [`backfill`]: runs of a DAG for dates that have passed
//! - [`task`]: what is done with task instances
//! - [`variable`], [`connection`], [`pool`], [`page`]: what DAGs find in Airflow, listed and written
//! - [`ui`]: Airflow's own user interface
//! - [`cost`]: what an environment costs
//! - [`credentials`]: for Modal's cloud
//! - [`watch`]: folders whose files are uploaded as they are saved
//! - [`daemon`], [`diagnostics`]: health and version of the daemon, and what it finds when it looks after itself
//! - [`routes`]: the paths of the API
//! - [`problem`]: errors as RFC 9457 problem documents
//! - [`home`], [`variables`]: where the daemon is found

#![warn(clippy::missing_errors_doc)]

pub mod airflow_options;
pub mod backfill;
pub mod backup;
pub mod config;
pub mod connection;
pub mod cost;
pub mod credentials;
pub mod daemon;
pub mod dag;
pub mod diagnostics;
pub mod environment;
pub mod event;
pub mod home;
pub mod log;
pub mod moment;
pub mod operation;
pub mod page;
pub mod pool;
pub mod problem;
pub mod question;
pub mod routes;
pub mod run;
pub mod secret;
pub mod task;
pub mod ui;
pub mod variable;
pub mod variables;
pub mod watch;

pub use problem::Problem;
pub use secret::Secret;
