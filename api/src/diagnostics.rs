//! What the daemon finds when it looks after itself and all that it needs.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::environment::{Condition, EnvironmentName, EnvironmentState, Target, UnregisteredEnvironmentList};

/// Response of `POST /v1/diagnostics`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Diagnostics {
    /// The daemon's clock.
    pub time: DateTime<Utc>,
    pub runtime: RuntimeDiagnosis,
    /// Local Modal.
    pub modal: ModalDiagnosis,
    /// Modal's cloud; none without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<ModalDiagnosis>,
    pub environments: Vec<EnvironmentDiagnosis>,
    /// Environments that are deployed but not registered.
    pub unregistered: UnregisteredEnvironmentList,
    pub disk: DiskDiagnosis,
    /// Orphaned temporary files and folders.
    pub left_overs: Vec<String>,
}

/// The Python runtime of this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuntimeDiagnosis {
    /// The interpreter of the virtual environment.
    pub interpreter: String,
    /// Whether it is complete and the interpreter works. If not, the next creation of an environment installs it again.
    pub complete: bool,
    /// The interpreter to create the virtual environment with, if one was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// Why there is none, otherwise null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A Modal server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModalDiagnosis {
    pub server_url: String,
    /// By how many seconds the daemon's clock is ahead of the server's, or behind it if negative; none if the server
    /// does
    /// not tell its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead: Option<i64>,
    /// Why it does not work, otherwise null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An environment, and whether a file that is written to its Volume can be read again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentDiagnosis {
    pub name: EnvironmentName,
    pub target: Target,
    pub state: EnvironmentState,
    pub volume: String,
    /// Seconds that the file took there and back; none if it did not come back, or if there is no Volume yet or soon
    /// none
    /// any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip: Option<f64>,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The condition `SchedulerHealthy`, if the environment has been deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Condition>,
}

/// The disk with the daemon's data folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DiskDiagnosis {
    pub path: String,
    pub free_bytes: u64,
    pub total_bytes: u64,
    /// Why it could not be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
