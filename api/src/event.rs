//! Events: what has happened, as a stream that can be taken up again.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::environment::EnvironmentName;

/// Something that happened to an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows from event to event, also across restarts of the daemon.
    pub id: i64,
    #[serde(rename = "type")]
    pub kind: EventKind,
    pub environment: EnvironmentName,
    /// Names and states of what it is about, by the kind of event.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
    pub created_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum EventKind {
    /// `data`: `generation`.
    #[serde(rename = "environment.created")]
    EnvironmentCreated,
    /// `data`: `generation`.
    #[serde(rename = "environment.updated")]
    EnvironmentUpdated,
    /// `data`: `generation`.
    #[serde(rename = "environment.ready")]
    EnvironmentReady,
    /// `data`: `generation`, `step`, `error`.
    #[serde(rename = "environment.failed")]
    EnvironmentFailed,
    /// `data`: `purge`.
    #[serde(rename = "environment.deleting")]
    EnvironmentDeleting,
    /// `data`: `purge`.
    #[serde(rename = "environment.deleted")]
    EnvironmentDeleted,
    /// `data`: `operation_id`, `step`, `state`.
    #[serde(rename = "operation.step")]
    OperationStep,
    /// `data`: `operation_id`, `state`, and `error` if there is one.
    #[serde(rename = "operation.ended")]
    OperationEnded,
    /// `data`: `filenames`; of a watch `watch_id` and `total_entries`, too, and at most 100 names.
    #[serde(rename = "dag_files.uploaded")]
    DagFilesUploaded,
    /// `data`: as of `dag_files.uploaded`.
    #[serde(rename = "dag_files.removed")]
    DagFilesRemoved,
    /// `data`: `watch_id`, `directory`, `state`, and `message` if there is one.
    #[serde(rename = "watch.state")]
    WatchState,
    /// `data`: `dag_id`, `dag_run_id`.
    #[serde(rename = "dag_run.triggered")]
    DagRunTriggered,
}

/// Query of `GET /v1/events`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FollowEvents {
    /// Only those of this environment.
    pub environment: Option<EnvironmentName>,
    /// Begin behind this event; 0 begins with the oldest that is kept. The header `Last-Event-ID` goes before it. Without
    /// both the stream begins with what happens next.
    #[param(minimum = 0)]
    pub after: Option<i64>,
    /// `false` ends the stream with the newest event that there is, instead of waiting for more.
    pub follow: Option<bool>,
}

/// One message of a stream (`text/event-stream`). Lines that begin with a colon are heartbeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerSentEvent {
    /// Sent back as `Last-Event-ID`, it takes the stream up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<String>,
    /// The kind of message.
    pub event: String,
    /// A JSON document, on one line.
    pub data: String,
}
