//! DAG runs, task instances and their logs, under Airflow's names.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{moment, page::limit_of};

/// Body of `POST …/dags/{dag_id}/runs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TriggerDagRun {
    /// Default: chosen by Airflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 248, pattern = "^[A-Za-z0-9_.~:+-]+$")]
    pub dag_run_id: Option<String>,
    /// UTC without a time zone, midnight without a time.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "moment::optional")]
    pub logical_date: Option<DateTime<Utc>>,
    /// Parameters of the run: a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub conf: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DagRun {
    pub dag_id: String,
    pub dag_run_id: String,
    /// `queued`, `running`, `success` or `failed`.
    pub state: String,
    pub run_type: String,
    pub logical_date: Option<DateTime<Utc>>,
    pub queued_at: Option<DateTime<Utc>>,
    pub start_date: Option<DateTime<Utc>>,
    pub end_date: Option<DateTime<Utc>>,
    /// Seconds from start to end.
    pub duration: Option<f64>,
    #[schema(value_type = Object)]
    pub conf: serde_json::Value,
}

impl DagRun {
    /// Whether nothing more will happen in this run.
    pub fn is_finished(&self) -> bool {
        matches!(self.state.as_str(), "success" | "failed")
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskInstance {
    pub task_id: String,
    /// -1 unless the task is mapped.
    pub map_index: i32,
    /// Null until it is scheduled.
    pub state: Option<String>,
    pub try_number: i32,
    pub max_tries: i32,
    pub operator: Option<String>,
    pub start_date: Option<DateTime<Utc>>,
    pub end_date: Option<DateTime<Utc>>,
    /// Seconds from start to end.
    pub duration: Option<f64>,
}

/// Response of `GET …/runs`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DagRunList {
    /// Newest first.
    pub dag_runs: Vec<DagRun>,
    /// Total number, independent of the limit.
    pub total_entries: i64,
}

/// State of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    Queued,
    Running,
    Success,
    Failed,
}

/// Query of `GET …/runs`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListDagRuns {
    pub dag_id: Option<String>,
    /// Filter by state.
    #[param(inline)]
    pub state: Option<RunState>,
    /// Maximum number of entries, 1 to 1000; default 100.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "limit_of")]
    pub limit: Option<u32>,
    pub offset: Option<u32>,
}

/// Body of `POST …/runs/{dag_run_id}/clear`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClearDagRun {
    /// Clear only the tasks that are `failed` or `upstream_failed`, not the whole run.
    pub only_failed: bool,
}

/// A state that users can set on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunMark {
    Queued,
    Success,
    Failed,
}

/// Body of `PATCH …/runs/{dag_run_id}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateDagRun {
    pub state: RunMark,
}

/// Get a run with its task instances, in the order in which they started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DagRunDetail {
    #[serde(flatten)]
    pub run: DagRun,
    pub task_instances: Vec<TaskInstance>,
}

/// Query of `GET …/tasks/{task_id}/logs`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReadLogs {
    /// Default: the last try.
    pub try_number: Option<i32>,
    /// Default: -1 (not mapped).
    pub map_index: Option<i32>,
}

/// The end of a try whose log was followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogEnd {
    pub try_number: i32,
    /// State of the task; null if it is gone.
    pub state: Option<String>,
}

/// The log of one try of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskLog {
    pub task_id: String,
    pub map_index: i32,
    pub try_number: i32,
    pub lines: Vec<LogLine>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    pub timestamp: Option<String>,
    pub level: Option<String>,
    /// Who wrote it, such as `task.stdout`.
    pub logger: Option<String>,
    pub event: String,
}
