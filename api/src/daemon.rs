//! The daemon itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The header of each answer that has the version of the daemon.
pub const VERSION_HEADER: &str = "airflow-serverless-version";

/// Response of `GET /v1/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Version of `airflowd`.
    pub version: String,
    pub airflow_version: String,
    pub modal_version: String,
    pub pid: u32,
}

/// Response of `GET /v1/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    pub status: String,
}
