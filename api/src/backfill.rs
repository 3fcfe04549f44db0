//! Backfills: runs of a DAG for dates that have passed, under Airflow's names.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{moment, page::limit_of};

/// The action on dates that have a run.
///
/// - `none`: skip them.
/// - `failed`: rerun those that have failed.
/// - `completed`: rerun those that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReprocessBehavior {
    #[default]
    None,
    Failed,
    Completed,
}

/// Body of `POST …/backfills` and `POST …/backfills/dry_run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBackfill {
    pub dag_id: String,
    /// First logical date (or partition date).
    #[serde(deserialize_with = "moment::required")]
    pub from_date: DateTime<Utc>,
    /// Last date, inclusive.
    #[serde(deserialize_with = "moment::required")]
    pub to_date: DateTime<Utc>,
    /// Start with the last date.
    #[serde(default)]
    pub run_backwards: bool,
    /// Parameters of the runs: a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub dag_run_conf: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default)]
    pub reprocess_behavior: ReprocessBehavior,
    /// Maximum number of its runs at the same time, independent of the DAG; default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_active_runs: Option<i32>,
    /// Whether reruns use the newest version of the DAG. Default: the setting of the DAG or the configuration,
    /// otherwise true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_on_latest_version: Option<bool>,
}

/// State of a backfill.
///
/// - `running`: its runs start and end.
/// - `paused`: its queued runs do not start.
/// - `completed`: all of its runs have ended.
/// - `cancelled`: its queued runs have failed; running ones continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackfillState {
    Running,
    Paused,
    Completed,
    Cancelled,
}

impl BackfillState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backfill {
    pub id: i64,
    pub dag_id: String,
    pub from_date: DateTime<Utc>,
    pub to_date: DateTime<Utc>,
    #[schema(value_type = Object)]
    pub dag_run_conf: serde_json::Value,
    pub state: BackfillState,
    /// Whether its queued runs do not start.
    pub is_paused: bool,
    /// `none`, `failed` or `completed`.
    pub reprocess_behavior: String,
    pub max_active_runs: i32,
    pub created_at: DateTime<Utc>,
    /// When its last run ended, or when it was cancelled.
    pub completed_at: Option<DateTime<Utc>>,
    pub updated_at: DateTime<Utc>,
}

/// A date of a backfill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackfillRun {
    /// Absent if the DAG has partitions.
    pub logical_date: Option<DateTime<Utc>>,
    pub partition_key: Option<String>,
    /// Absent if the backfill has no run for this date.
    pub dag_run_id: Option<String>,
    /// State of the run: `queued`, `running`, `success` or `failed`.
    pub state: Option<String>,
    /// Why there is no run: `already exists`, or `in flight`.
    pub exception_reason: Option<String>,
}

/// A backfill with its dates, in the order in which their runs start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackfillDetail {
    #[serde(flatten)]
    pub backfill: Backfill,
    pub dag_runs: Vec<BackfillRun>,
}

/// Response of `GET …/backfills`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackfillList {
    /// Newest first.
    pub backfills: Vec<Backfill>,
    /// Total number, independent of the limit.
    pub total_entries: i64,
}

/// Query of `GET …/backfills`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListBackfills {
    pub dag_id: Option<String>,
    /// Maximum number of entries, 1 to 1000; default 100.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "limit_of")]
    pub limit: Option<u32>,
    pub offset: Option<u32>,
}

/// A run that a backfill would create.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DryRunBackfill {
    pub logical_date: Option<DateTime<Utc>>,
    pub partition_key: Option<String>,
    pub partition_date: Option<DateTime<Utc>>,
}

/// Response of `POST …/backfills/dry_run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DryRunBackfillList {
    pub backfills: Vec<DryRunBackfill>,
    pub total_entries: i64,
}

/// What is done with a backfill that is not completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackfillAction {
    /// None of its queued runs begins.
    Pause,
    Unpause,
    /// Its queued runs fail. Those that have begun go on.
    Cancel,
}

impl BackfillAction {
    /// As it stands in the name of its command.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Cancel => "cancel",
        }
    }
}
