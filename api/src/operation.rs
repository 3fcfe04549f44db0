//! Long work: accepted with 202, followed step by step.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    environment::EnvironmentName,
    page::{limit_of, within},
};

/// Work on an environment, with its steps in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    pub id: Uuid,
    pub kind: OperationKind,
    pub environment: EnvironmentName,
    pub state: OperationState,
    pub steps: Vec<Step>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Grows with each change; pass it as `after` to wait for the next one.
    pub revision: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    Create,
    Update,
    Delete,
}

/// State of an operation.
///
/// - `running`: its steps are running.
/// - `succeeded`: all of its steps are done.
/// - `failed`: the daemon retries; see the state of the environment.
/// - `cancelled`: it was cancelled or replaced by a later change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// One step of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// What it does, for people.
    pub title: String,
    pub state: StepState,
    /// Progress, result or cause of failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    Pending,
    Running,
    Succeeded,
    Failed,
}

/// Query of `GET /v1/operations`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListOperations {
    /// Filter by environment.
    pub environment: Option<EnvironmentName>,
    /// Filter by state.
    pub state: Option<OperationState>,
    /// Maximum number of entries, 1 to 1000; default 100.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "limit_of")]
    pub limit: Option<u32>,
    pub offset: Option<u32>,
}

/// Response of `GET /v1/operations`, newest first. Those that have ended are kept for 7 days.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OperationList {
    pub operations: Vec<Operation>,
    pub total_entries: i64,
}

/// Query of `GET /v1/operations/{id}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FollowOperation {
    /// Wait until the revision is greater than this, up to `wait_seconds`.
    pub after: Option<i64>,
    /// Maximum wait in seconds, at most 30.
    #[param(maximum = 30)]
    #[serde(default, deserialize_with = "within::<0, 30, _>")]
    pub wait_seconds: Option<u32>,
}
