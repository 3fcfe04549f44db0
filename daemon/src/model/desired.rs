//! The desired state of environments.

use airflow_serverless_api::environment::Environment;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The desired state of an environment.
#[derive(Clone, Debug)]
pub struct DesiredState {
    pub environment: Environment,
    pub deletion: Option<Deletion>,
    /// Whether it still has to be reconciled.
    pub is_open: bool,
    /// Consecutive failed attempts, and the time of the next one.
    pub attempts: u32,
    pub retry_at: Option<DateTime<Utc>>,
}

/// What happens to an environment's Volume, Dict and Secret when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deletion {
    Keep,
    Purge,
}
