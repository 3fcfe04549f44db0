//! Environments: one Airflow each, with its App, Volume, Dict and Secret on Modal.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{config::Config, operation::Operation, page::limit_of};

/// A valid environment name. It becomes part of the names on Modal, so it keeps to what is valid there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", example = "dev")]
pub struct EnvironmentName(String);

/// Why a text is no environment name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is not a valid environment name: use 1 to 32 lower-case letters, digits and hyphens, \
     with a letter or digit at each end"
)]
pub struct InvalidName(pub String);

impl EnvironmentName {
    const MAX_LENGTH: usize = 32;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `airflow-serverless-{name}`
    pub fn app(&self) -> String {
        format!("airflow-serverless-{self}")
    }

    /// `airflow-dags-{name}`
    pub fn volume(&self) -> String {
        format!("airflow-dags-{self}")
    }

    /// `airflow-state-{name}`
    pub fn dict(&self) -> String {
        format!("airflow-state-{self}")
    }

    /// `airflow-secrets-{name}`
    pub fn secret(&self) -> String {
        format!("airflow-secrets-{self}")
    }
}

impl FromStr for EnvironmentName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let valid = (1..=Self::MAX_LENGTH).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidName(text.to_owned())) }
    }
}

impl TryFrom<String> for EnvironmentName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<EnvironmentName> for String {
    fn from(name: EnvironmentName) -> String {
        name.0
    }
}

impl fmt::Display for EnvironmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Body of `POST /v1/environments`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateEnvironment {
    pub name: EnvironmentName,
    pub config: Config,
}

/// Body of `PATCH /v1/environments/{environment}`. The whole configuration is replaced: what is left out gets its
/// default.
/// Only secrets that are left out stay as they are. `target`, `modal.environment` and `database.type` cannot change.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateEnvironment {
    pub config: Config,
}

/// An environment as the registry knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Environment {
    pub name: EnvironmentName,
    /// Where it runs.
    pub target: Target,
    /// The desired configuration, without secrets.
    pub config: Config,
    /// Grows with each change of the configuration.
    pub generation: i64,
    /// The generation that was last brought to Modal completely; 0 before the first.
    pub observed_generation: i64,
    pub state: EnvironmentState,
    /// Its current conditions.
    pub conditions: Vec<Condition>,
    /// Why the last attempt to reach the wanted configuration failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Attempts in a row that failed.
    pub failed_attempts: u32,
    /// When the daemon retries, if it will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<DateTime<Utc>>,
    pub names: ModalNames,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Environment {
    /// The condition of this kind, if the environment has one.
    pub fn condition(&self, kind: ConditionKind) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
}

/// Where an environment runs.
///
/// - `local`: on Local Modal, the emulator inside the daemon.
/// - `modal`: in Modal's cloud, with the daemon's credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    #[default]
    Local,
    Modal,
}

/// State of an environment.
///
/// - `progressing`: it is being created or updated.
/// - `ready`: the desired configuration is deployed.
/// - `degraded`: the last attempt failed, and the daemon retries; or the work was cancelled.
/// - `deleting`: it is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EnvironmentState {
    Progressing,
    Ready,
    Degraded,
    Deleting,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Local => "local",
            Self::Modal => "modal",
        })
    }
}

impl fmt::Display for EnvironmentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Progressing => "progressing",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Deleting => "deleting",
        })
    }
}

/// A condition of an environment, which is true or false.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    pub status: bool,
    /// The reason in one word, for programs.
    pub reason: Reason,
    /// The reason, for people.
    pub message: String,
    pub last_transition_at: DateTime<Utc>,
}

/// The conditions of an environment.
///
/// - `Available`: a generation is deployed and its DAGs are scheduled.
/// - `Reconciled`: the deployed generation is the desired one.
/// - `SchedulerHealthy`: ticks of its scheduler succeed, and nothing is quarantined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ConditionKind {
    Available,
    Reconciled,
    SchedulerHealthy,
}

/// The reason for the status of a condition.
///
/// - `Deployed`: a generation is deployed.
/// - `NeverDeployed`: no generation was deployed yet.
/// - `AsConfigured`: the desired generation is deployed.
/// - `InProgress`: steps towards the desired generation are running.
/// - `StepFailed`: a step failed and is retried.
/// - `Cancelled`: the work was cancelled and is not retried.
/// - `Deleting`: it is being deleted.
/// - `Scheduling`: ticks succeed.
/// - `Unobserved`: the scheduler was not checked yet.
/// - `Quarantined`: something is quarantined; `GET …/import-errors` lists it.
/// - `TickFailed`: the last tick failed.
/// - `TickOverdue`: a tick is overdue by more than 3 minutes.
/// - `DatabaseDamaged`, `DatabaseLocked`, `DatabaseMissing`, `DatabaseNewer` (of a newer version of Airflow),
///   `DatabaseReadOnly`, `DatabaseUnavailable`, `DiskFull`: the last tick failed by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Reason {
    Deployed,
    NeverDeployed,
    AsConfigured,
    InProgress,
    StepFailed,
    Cancelled,
    Deleting,
    Scheduling,
    Unobserved,
    Quarantined,
    TickFailed,
    TickOverdue,
    DatabaseDamaged,
    DatabaseLocked,
    DatabaseMissing,
    DatabaseNewer,
    DatabaseReadOnly,
    DatabaseUnavailable,
    DiskFull,
}

/// The names of an environment's objects on Modal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModalNames {
    pub app: String,
    pub volume: String,
    pub dict: String,
    pub secret: String,
}

impl From<&EnvironmentName> for ModalNames {
    fn from(name: &EnvironmentName) -> Self {
        Self { app: name.app(), volume: name.volume(), dict: name.dict(), secret: name.secret() }
    }
}

/// Query of `GET /v1/environments`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListEnvironments {
    /// Filter by state.
    pub state: Option<EnvironmentState>,
    /// Maximum number of entries, 1 to 1000; default 100.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "limit_of")]
    pub limit: Option<u32>,
    pub offset: Option<u32>,
}

/// Response of `GET /v1/environments`, by name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentList {
    pub environments: Vec<Environment>,
    pub total_entries: i64,
}

/// An environment that is deployed, but not in the daemon's registry: the registry was lost, or another daemon has
/// created it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UnregisteredEnvironment {
    pub name: EnvironmentName,
    /// Where it runs.
    pub target: Target,
    /// The configuration of its last deployment, without secrets; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Config>,
}

/// Response of `GET /v1/unregistered-environments`, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UnregisteredEnvironmentList {
    pub environments: Vec<UnregisteredEnvironment>,
    pub total_entries: i64,
    /// Why Modal's cloud could not be listed, if there are credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Query of `DELETE /v1/environments/{environment}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeleteEnvironment {
    /// Remove its Volume, Dict and Secret too: DAG files, metadata, XComs, logs and keys are lost. Without it they
    /// stay,
    /// and an environment of the same name finds them again.
    #[serde(default)]
    pub purge: bool,
}

/// Response to a create, update or delete: the environment and, unless nothing had to be done, the operation.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentChange {
    pub environment: Environment,
    /// Absent when the environment already is as asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_modal_would_refuse_are_refused() {
        for good in ["dev", "a", "team-1", &"x".repeat(32)] {
            assert!(good.parse::<EnvironmentName>().is_ok(), "{good}");
        }
        for bad in ["", "-dev", "dev-", "Dev", "a b", "a/b", "ä", "a.b", "a_b", &"x".repeat(33)] {
            assert!(bad.parse::<EnvironmentName>().is_err(), "{bad}");
        }
    }
}
