//! Task instances: listed, run again, marked.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{page::limit_of, run::TaskInstance};

/// State of a task instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    None,
    Scheduled,
    Queued,
    Running,
    Success,
    Restarting,
    Failed,
    UpForRetry,
    UpForReschedule,
    UpstreamFailed,
    Skipped,
    Deferred,
    AwaitingInput,
    Removed,
}

impl TaskState {
    /// Whether a task instance is in this state, as it is written there.
    pub fn is(self, state: Option<&str>) -> bool {
        match (self, state) {
            (Self::None, state) => state.is_none(),
            (_, None) => false,
            (_, Some(word)) => serde_json::from_value(word.into()).is_ok_and(|other: Self| self == other),
        }
    }
}

/// Query of `GET …/runs/{dag_run_id}/tasks`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListTaskInstances {
    /// Filter by state; `none` means not scheduled yet.
    #[param(inline)]
    pub state: Option<TaskState>,
    /// Maximum number of entries, 1 to 1000; default 100.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "limit_of")]
    pub limit: Option<u32>,
    pub offset: Option<u32>,
}

/// Task instances of one run: those of a list, or those that were changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskInstanceList {
    pub task_instances: Vec<TaskInstance>,
    /// Total number, independent of the limit.
    pub total_entries: i64,
}

/// Body of `POST …/tasks/{task_id}/clear`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClearTaskInstances {
    /// Of a mapped task, only the instance with this index; default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_index: Option<i32>,
    /// Include all upstream tasks.
    pub include_upstream: bool,
    /// Include all downstream tasks.
    pub include_downstream: bool,
    /// Clear only tasks in the states `failed` and `upstream_failed`.
    pub only_failed: bool,
}

/// A state that users can set on a task instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskMark {
    Success,
    Failed,
    Skipped,
}

/// Body of `PATCH …/tasks/{task_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateTaskInstance {
    pub new_state: TaskMark,
    /// Of a mapped task, only the instance with this index; default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_index: Option<i32>,
    /// Include all upstream tasks.
    #[serde(default)]
    pub include_upstream: bool,
    /// Include all downstream tasks.
    #[serde(default)]
    pub include_downstream: bool,
}
