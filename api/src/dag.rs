//! DAG files on the Volume, and the DAGs that the scheduler found in them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::page::limit_of;

/// A DAG as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dag {
    pub dag_id: String,
    /// Path of its file below `dags/` on the Volume.
    pub relative_fileloc: Option<String>,
    pub is_paused: bool,
    /// Whether the DAG is no longer in any file.
    pub is_stale: bool,
    pub has_import_errors: bool,
    /// The schedule in words, such as `0 6 * * *` or `None`.
    pub timetable_summary: Option<String>,
    pub next_dagrun_logical_date: Option<DateTime<Utc>>,
    pub last_parsed_time: Option<DateTime<Utc>>,
}

/// A DAG with the details of its newest version in the database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DagDetail {
    #[serde(flatten)]
    pub dag: Dag,
    pub description: Option<String>,
    pub owners: Vec<String>,
    pub tags: Vec<String>,
    /// When the next run will be created; absent without a schedule.
    pub next_dagrun_run_after: Option<DateTime<Utc>>,
    pub max_active_runs: Option<i32>,
    pub max_active_tasks: i32,
    pub tasks: Vec<Task>,
}

/// A task of a DAG.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    pub task_id: String,
    /// Class of its operator, such as `BashOperator`.
    pub operator_name: String,
    pub is_mapped: bool,
    pub downstream_task_ids: Vec<String>,
}

/// An error at import, as the scheduler recorded it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ImportError {
    /// Path below `dags/` on the Volume.
    pub filename: String,
    /// The last line of the file in the stack trace, if any.
    #[serde(default)]
    pub line: Option<u32>,
    pub timestamp: Option<DateTime<Utc>>,
    pub stack_trace: String,
}

/// Query of `GET …/import-errors`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListImportErrors {
    /// Maximum number of entries, 1 to 1000; default 100.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "limit_of")]
    pub limit: Option<u32>,
    pub offset: Option<u32>,
}

/// Response of `GET …/import-errors`, by file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ImportErrorList {
    pub import_errors: Vec<ImportError>,
    /// Total number, independent of the limit.
    pub total_entries: i64,
}

/// A file below `dags/` on the Volume, with what the scheduler found in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DagFile {
    /// Path below `dags/`.
    pub filename: String,
    /// Bytes.
    pub size: u64,
    pub modified_at: Option<DateTime<Utc>>,
    /// DAGs that the scheduler has detected in the file; empty until it has parsed it.
    pub dags: Vec<Dag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import_error: Option<ImportError>,
    /// DAGs of the file that are ignored because another file defines the same ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadowed_dags: Vec<ShadowedDag>,
    /// Whether the scheduler has parsed the file. A parsed file without DAGs and without an error is a helper module.
    #[serde(default)]
    pub is_known: bool,
}

/// A DAG that is ignored because another file defines the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShadowedDag {
    pub dag_id: String,
    /// The file whose DAG is used, until it no longer defines it.
    pub defined_in: String,
}

/// Query of `GET …/dags`. What is asked of DAGs leaves out the files that have none of that kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListDagFiles {
    /// Filter by a part of the DAG id, case-insensitive.
    pub dag_id_pattern: Option<String>,
    /// Filter by whether DAGs are paused.
    pub paused: Option<bool>,
    /// Filter by whether files have import errors.
    pub has_import_errors: Option<bool>,
    /// Maximum number of files, 1 to 1000; default 100.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "limit_of")]
    pub limit: Option<u32>,
    pub offset: Option<u32>,
}

/// Response of `GET …/dags`, by file.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DagFileList {
    pub files: Vec<DagFile>,
    /// Total number of files, independent of the limit.
    pub total_entries: i64,
}

/// A DAG that the validator found in a file before its upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ValidatedDag {
    pub dag_id: String,
    pub schedule: Option<String>,
    pub task_count: u32,
}

/// Query of `PUT …/dags/files/{filename}`, where plugins are `plugins%2F{name}`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PutDagFile {
    /// Whether the file must be new or must exist.
    #[param(inline)]
    pub mode: PutMode,
}

/// What must be true of the Volume.
///
/// - `create`: refused if another file has that name; the same content again is no error.
/// - `update`: refused unless the file exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PutMode {
    Create,
    Update,
}

/// Response to a PUT of a DAG file.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DagFileChange {
    pub filename: String,
    pub outcome: PutOutcome,
    /// Empty for a plugin.
    pub dags: Vec<ValidatedDag>,
    pub warnings: Vec<String>,
}

/// The result of the upload.
///
/// - `created`: the file is new.
/// - `updated`: it replaced other content.
/// - `unchanged`: the Volume already has this content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PutOutcome {
    Created,
    Updated,
    Unchanged,
}

/// Query of `DELETE …/dags/{dag_id}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeleteDag {
    /// Delete the file even if it defines other DAGs.
    #[serde(default)]
    pub force: bool,
}

/// Body of `PATCH …/dags/{dag_id}`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateDag {
    pub is_paused: bool,
}

/// Response of `DELETE …/dags/{dag_id}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DagDeletion {
    pub dag_id: String,
    /// The file that was deleted from the Volume.
    pub filename: String,
    /// All DAGs of that file, now inactive.
    pub deactivated: Vec<String>,
}

/// Response of `DELETE …/dags/files/{filename}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DagFileDeletion {
    pub filename: String,
    /// All DAGs of that file, now inactive.
    pub deactivated: Vec<String>,
}
