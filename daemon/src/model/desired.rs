//! What the user wants of environments.

use airflow_serverless_api::environment::Environment;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What is wanted of an environment.
#[derive(Clone, Debug)]
pub struct DesiredState {
    pub environment: Environment,
    pub deletion: Option<Deletion>,
    /// Whether there is work to do for it.
    pub is_open: bool,
    /// How often in a row it has been tried in vain, and when it may be tried again.
    pub attempts: u32,
    pub retry_at: Option<DateTime<Utc>>,
}

/// What becomes of an environment's Volume, Dict and Secret when it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deletion {
    Keep,
    Purge,
}
