//! Watches: folders whose files are brought to an environment as they are saved.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::environment::EnvironmentName;

/// Body of `POST /v1/watches`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWatch {
    pub environment: EnvironmentName,
    /// An absolute path on the daemon's machine. What is below it comes below `dags/` on the Volume.
    #[schema(example = "/home/me/dags")]
    pub directory: String,
    /// Remove from the Volume what this watch has uploaded and is deleted from the folder.
    #[serde(default)]
    pub delete: bool,
    /// Only files that match one of these, in the syntax of `.gitignore`; all files if there are none.
    #[serde(default)]
    pub patterns: Vec<String>,
}

/// Query of `GET /v1/watches`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListWatches {
    /// Only those of this environment.
    pub environment: Option<EnvironmentName>,
}

/// A watched folder, and how the files in it and those on the Volume stand to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Watch {
    pub id: Uuid,
    pub environment: EnvironmentName,
    pub directory: String,
    pub delete: bool,
    pub patterns: Vec<String>,
    pub state: WatchState,
    /// Why the last attempt failed, or what is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When a failed attempt is repeated, if nothing changes before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<DateTime<Utc>>,
    pub mode: WatchMode,
    /// Why the folder is looked at again and again instead of waiting for the system's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Files in the folder that belong on the Volume.
    pub total_files: u64,
    /// Of these, those that are there as they are here.
    pub total_in_sync: u64,
    pub total_pending: u64,
    pub total_invalid: u64,
    /// What is still to be uploaded or removed; the first ones.
    pub pending: Vec<PendingFile>,
    /// What is not uploaded until it is corrected; the first ones. The last good version stays on the Volume.
    pub invalid: Vec<InvalidFile>,
    /// What is uploaded all the same, but will not do all that it asks for: what the validator warned of since the
    /// daemon started, and DAG ids that several files define; the first ones.
    #[serde(default)]
    pub warnings: Vec<FileWarning>,
    /// Files below `dags/` on the Volume that are not in the folder; absent if the Volume cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_on_volume: Option<VolumeFiles>,
    /// How many uploads there were since the watch was added; many files that are saved together are one.
    pub uploads: i64,
    /// When the Volume was last found or made to be like the folder, apart from what is invalid.
    pub last_synced_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

/// How folder and Volume stand to each other.
///
/// - `in_sync`: the Volume has what the folder has.
/// - `pending`: something is on its way, or waits for the environment.
/// - `invalid`: some files cannot be uploaded; all others are in sync.
/// - `missing`: the folder is gone. Nothing is removed because of that, and it is picked up again when it is back.
/// - `failed`: the last attempt failed, and is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WatchState {
    InSync,
    Pending,
    Invalid,
    Missing,
    Failed,
}

/// How changes are noticed.
///
/// - `inotify`: the system tells of changes.
/// - `polling`: the folder is looked at every few seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WatchMode {
    Inotify,
    Polling,
}

/// A file on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PendingFile {
    /// Path below the folder.
    pub file: String,
    pub action: PendingAction,
    /// What it waits for, if not just for its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is to happen to a file on the Volume.
///
/// - `upload`: it is new or was changed in the folder.
/// - `remove`: it is gone from the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PendingAction {
    Upload,
    Remove,
}

/// A file that is not uploaded, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvalidFile {
    /// Path below the folder.
    pub file: String,
    /// Line in the file, from 1, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    pub message: String,
}

/// A warning of a file that is uploaded all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileWarning {
    /// Path below the folder.
    pub file: String,
    pub message: String,
}

/// Files of the Volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeFiles {
    /// The first ones.
    pub files: Vec<VolumeFile>,
    pub total_entries: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeFile {
    /// Path below `dags/`.
    pub file: String,
    pub origin: VolumeFileOrigin,
}

/// How a file came to the Volume.
///
/// - `kept`: this watch uploaded it, and keeps it as it was not told to delete.
/// - `other`: it came another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeFileOrigin {
    Kept,
    Other,
}

/// Answer of `GET /v1/watches`, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WatchList {
    pub watches: Vec<Watch>,
    pub total_entries: u64,
}

/// Answer of `DELETE /v1/watches/{watch_id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WatchRemoval {
    pub id: Uuid,
    pub environment: EnvironmentName,
    pub directory: String,
    /// How many files of the watch stay on the Volume.
    pub files_kept: u64,
}
