//! The errors of the daemon's services. `http::problem` assigns their statuses.

use airflow_serverless_api::{environment::EnvironmentName, problem::Fault};
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    modal::{CredentialsError, ModalError},
    runtime::RuntimeError,
    store::StoreError,
};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the configuration is not valid")]
    InvalidConfig(Vec<Fault>),
    #[error("there is no environment {0}")]
    EnvironmentNotFound(EnvironmentName),
    #[error("environment {0} is not deployed on Local Modal or, with credentials, in Modal's cloud")]
    NotDeployed(EnvironmentName),
    #[error("environment {0} was not adopted because its configuration is unknown: {1}")]
    NotAdopted(EnvironmentName, String),
    #[error("data/environment.json on its Volume: {0}")]
    Description(String),
    #[error("environment {0} exists with another configuration; nothing was changed")]
    EnvironmentDiffers(EnvironmentName),
    #[error("environment {0} is not ready yet{cause}", cause = because(.1))]
    EnvironmentNotReady(EnvironmentName, Option<String>),
    #[error("environment {0} is being deleted")]
    EnvironmentDeleting(EnvironmentName),
    #[error("cannot cancel the deletion of {0}: resources have already been deleted")]
    DeletionNotCancelled(EnvironmentName),
    #[error("{0} has changed since the request's ETag; nothing was changed")]
    PreconditionFailed(String),
    #[error("a request with this Idempotency-Key is in progress")]
    IdempotencyKeyInUse,
    #[error("this Idempotency-Key was used for another request")]
    IdempotencyKeyReused,
    #[error("there is no operation {0}")]
    OperationNotFound(Uuid),

    #[error("{0:?} is not a valid name for a DAG file: {1}")]
    InvalidFileName(String, &'static str),
    #[error("{0} exists in environment {1} with other content; nothing was changed")]
    FileExists(String, EnvironmentName),
    #[error("there is no file {0} in environment {1}")]
    FileNotFound(String, EnvironmentName),
    #[error("{file} was not uploaded: it is not a valid DAG file")]
    InvalidDagFile { file: String, faults: Vec<Fault> },

    #[error("there is no DAG {0} in environment {1}")]
    DagNotFound(String, EnvironmentName),
    #[error("{file} also defines {}; nothing was removed", others.join(", "))]
    SharedFile { file: String, others: Vec<String> },
    #[error("there is no run {1} of DAG {0}")]
    RunNotFound(String, String),
    #[error("{0:?} is not a valid run id: {1}")]
    InvalidRunId(String, &'static str),
    #[error("there is no {noun} {1:?} in environment {2}", noun = .0.noun())]
    NotFound(Subject, String, EnvironmentName),
    #[error("{0}")]
    LogNotFound(#[from] NoLog),
    #[error("{message}")]
    Refused { subject: Subject, reason: Reason, message: String },
    #[error("environment {0} has no backup to restore; nothing was changed")]
    NoBackup(EnvironmentName),
    #[error("the scheduler did not respond within {0} s; the request is queued and will be carried out")]
    SchedulerSilent(u64),

    #[error("the scheduler of environment {0} is failing: {1}; the request is queued until it recovers")]
    SchedulerFailed(EnvironmentName, String),

    #[error("limit reached: {0} UIs are running")]
    TooManyUis(usize),
    #[error("the UI of environment {0} failed: {1}")]
    UiFailed(EnvironmentName, String),

    #[error("the credentials are not valid")]
    InvalidCredentials(Vec<Fault>),
    #[error("there is no watch {0}")]
    WatchNotFound(Uuid),
    #[error("the watch is not valid")]
    InvalidWatch(Vec<Fault>),
    #[error("{0} is watched with other options; nothing was changed")]
    WatchDiffers(String),
    #[error("{0} overlaps {1}, which is already watched for the same environment")]
    WatchOverlaps(String, String),
    #[error(
        "{directory} has a file of the same name as {other}, which is already watched for the same environment: \
         {file}{}", more(*.count)
    )]
    WatchConflicts { directory: String, other: String, file: String, count: usize },
    #[error("limit reached: {0} watches")]
    TooManyWatches(usize),
    #[error("{0}")]
    Watch(String),

    #[error("Modal: {0}")]
    Modal(ModalError),
    #[error("{0}")]
    Runtime(#[from] RuntimeError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the metadata database of environment {0}, data/airflow.db, is missing on its Volume")]
    DatabaseMissing(EnvironmentName),
    #[error("reading the metadata of environment {environment} failed")]
    Metadata { environment: EnvironmentName, source: sqlx::Error },
    #[error("the database of environment {environment} did not respond: {message}")]
    Database { environment: EnvironmentName, message: String },
    #[error("{action} {path} failed")]
    Files { action: &'static str, path: String, source: std::io::Error },
}

impl Error {
    /// Whether Modal no longer knows a used object: it was removed, or replaced by another one with its name.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Modal(ModalError::Client(error)) if error.is_not_found())
    }
}

/// Why there is no log to show.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLog {
    #[error("run {run_id} has no task {task_id:?}; its tasks are {}", known.join(", "))]
    UnknownTask { run_id: String, task_id: String, known: Vec<String> },
    #[error("task {task_id} is mapped: choose an instance, {}", range(*.count))]
    Mapped { task_id: String, count: usize },
    #[error("task {task_id} is not mapped: it has no instance {map_index}")]
    NotMapped { task_id: String, map_index: i32 },
    #[error("task {task_id} has no instance {map_index}, only {}", range(*.count))]
    NoSuchInstance { task_id: String, map_index: i32, count: usize },
    #[error("task {task_id} has not started{}", state_of(.state))]
    NotStarted { task_id: String, state: Option<String> },
    #[error("task {task_id} has no try {try_number}: there {}", tries(*.last))]
    NoSuchTry { task_id: String, try_number: i32, last: i32 },
    #[error("the log of try {try_number} of task {task_id} is not on the Volume: it was deleted or is not written yet")]
    NotThere { task_id: String, try_number: i32 },
}

impl NoLog {
    /// Returns a hint on what to do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::UnknownTask { .. } => "`airflow-serverless runs show` shows the tasks of a run",
            Self::Mapped { .. } | Self::NoSuchInstance { .. } => {
                "choose one with `--map-index N` (`map_index` in the request)"
            }
            Self::NotMapped { .. } => "omit `--map-index` (`map_index` in the request)",
            Self::NotStarted { .. } => "`airflow-serverless tasks logs --follow` waits for it",
            Self::NoSuchTry { .. } => "omit `--try` (`try_number` in the request) for the last one",
            Self::NotThere { .. } => "`airflow-serverless logs` shows what the containers have printed",
        }
    }
}

fn range(count: usize) -> String {
    if count == 1 { "0".to_owned() } else { format!("0 to {}", count - 1) }
}

fn state_of(state: &Option<String>) -> String {
    state.as_ref().map_or_else(|| ": it is not scheduled yet".to_owned(), |state| format!(": it is {state}"))
}

fn tries(last: i32) -> String {
    if last == 1 { "was 1".to_owned() } else { format!("were {last}") }
}

/// The object of a command to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Dag,
    Run,
    Task,
    Question,
    Backfill,
    Backup,
    Variable,
    Connection,
    Pool,
}

impl Subject {
    /// Returns the noun for use in a sentence.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Dag => "DAG",
            Self::Run => "DAG run",
            Self::Task => "task instance",
            Self::Question => "question",
            Self::Backfill => "backfill",
            Self::Backup => "backup",
            Self::Variable => "variable",
            Self::Connection => "connection",
            Self::Pool => "pool",
        }
    }
}

/// Why the scheduler did not carry out a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Invalid,
    NotFound,
    Conflict,
}

fn more(count: usize) -> String {
    if count > 1 { format!(", and {} more", count - 1) } else { String::new() }
}

fn because(cause: &Option<String>) -> String {
    cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default()
}

impl From<ModalError> for Error {
    fn from(error: ModalError) -> Self {
        match error {
            ModalError::Credentials(CredentialsError::Malformed(faults)) => Self::InvalidCredentials(faults),
            error => Self::Modal(error),
        }
    }
}

impl From<modal_client::Error> for Error {
    fn from(error: modal_client::Error) -> Self {
        Self::Modal(error.into())
    }
}
