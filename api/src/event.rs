//! Events: what has happened, as a stream that can be taken up again.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::environment::EnvironmentName;

/// An event of an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows from event to event, also across restarts of the daemon.
    pub id: i64,
    #[serde(rename = "type")]
    pub kind: EventKind,
    pub environment: EnvironmentName,
    /// Names and states of what it is about, by the kind of event: see `EventKind`.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
    pub created_at: DateTime<Utc>,
}

/// What happened, and what is in the `data` of the event. Events are kept for 7 days, at most 10,000 of them.
///
/// - `environment.created`: it was asked for; `generation`, `operation_id`.
/// - `environment.updated`: another configuration was asked for, or the same one again; `generation`, `operation_id`.
/// - `environment.ready`: what runs is what was asked for; `generation`.
/// - `environment.failed`: an attempt failed, and another one follows; `generation`, `step`, `error`.
/// - `environment.deleting`: its end was asked for; `generation`, `operation_id`, `purge`.
/// - `environment.deleted`: it is gone; `purge`.
/// - `operation.step`: a step has begun or ended; `operation_id`, `step`, `state`.
/// - `operation.ended`: nothing more comes of it; `operation_id`, `state`, `error` (`null` if it succeeded).
/// - `dag_files.uploaded`: files are on the Volume; `filenames`, of a watch at most 100 of them, and `watch_id` and
///   `total_entries`, too; `warnings`, each with `file` and `message`.
/// - `dag_files.removed`: files are no longer on the Volume; as of `dag_files.uploaded`, without `warnings`.
/// - `watch.state`: a watch got into trouble, or out of it; `watch_id`, `directory`, `state`, `message` (`null` if
///   there is none).
/// - `scheduler.state`: the scheduler cannot do something, or can again; `status`, `reason`, `message` of the condition
///   `SchedulerHealthy`.
/// - `dag_run.triggered`: a run was asked for; `dag_id`, `dag_run_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum EventKind {
    #[serde(rename = "environment.created")]
    EnvironmentCreated,
    #[serde(rename = "environment.updated")]
    EnvironmentUpdated,
    #[serde(rename = "environment.ready")]
    EnvironmentReady,
    #[serde(rename = "environment.failed")]
    EnvironmentFailed,
    #[serde(rename = "environment.deleting")]
    EnvironmentDeleting,
    #[serde(rename = "environment.deleted")]
    EnvironmentDeleted,
    #[serde(rename = "operation.step")]
    OperationStep,
    #[serde(rename = "operation.ended")]
    OperationEnded,
    #[serde(rename = "dag_files.uploaded")]
    DagFilesUploaded,
    #[serde(rename = "dag_files.removed")]
    DagFilesRemoved,
    #[serde(rename = "watch.state")]
    WatchState,
    #[serde(rename = "scheduler.state")]
    SchedulerState,
    #[serde(rename = "dag_run.triggered")]
    DagRunTriggered,
}

/// Query of `GET /v1/events`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FollowEvents {
    /// Filter by environment.
    pub environment: Option<EnvironmentName>,
    /// Start after this event; 0 starts with the oldest. The header `Last-Event-ID` takes precedence. Without both, the
    /// stream starts with the next event.
    #[param(minimum = 0)]
    pub after: Option<i64>,
    /// `false` ends the stream after the newest event instead of waiting for more.
    pub follow: Option<bool>,
}

/// One message of a stream (`text/event-stream`). Lines that begin with a colon are heartbeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerSentEvent {
    /// Resumes the stream when sent as `Last-Event-ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<String>,
    /// The kind of message.
    pub event: String,
    /// A JSON document, on one line.
    pub data: String,
}
