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
    /// Absolute path on the daemon's machine. It is synced to `dags/` on the Volume.
    #[schema(example = "/home/me/dags")]
    pub directory: String,
    /// Delete files on the Volume that this watch uploaded when they are deleted in the folder.
    #[serde(default)]
    pub delete: bool,
    /// Patterns of files to sync, in the syntax of `.gitignore`; default: all files.
    #[serde(default)]
    pub patterns: Vec<String>,
}

/// Query of `GET /v1/watches`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListWatches {
    /// Filter by environment.
    pub environment: Option<EnvironmentName>,
}

/// A watched folder and the state of its sync.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Watch {
    pub id: Uuid,
    pub environment: EnvironmentName,
    pub directory: String,
    pub delete: bool,
    pub patterns: Vec<String>,
    pub state: WatchState,
    /// Why the last attempt failed, or what the sync waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When a failed attempt is retried if nothing changes before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<DateTime<Utc>>,
    pub mode: WatchMode,
    /// Why the folder is polled instead of watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Number of files in the folder to sync.
    pub total_files: u64,
    /// Number of these files that are in sync.
    pub total_in_sync: u64,
    pub total_pending: u64,
    pub total_invalid: u64,
    /// Pending uploads and deletions; the first entries.
    pub pending: Vec<PendingFile>,
    /// Files with errors, which are not uploaded; the first entries. Their last good versions stay on the Volume.
    pub invalid: Vec<InvalidFile>,
    /// What is uploaded all the same, but will not do all that it asks for: what the validator warned of since the
    /// daemon started, and DAG ids that several files define; the first ones.
    #[serde(default)]
    pub warnings: Vec<FileWarning>,
    /// Files below `dags/` on the Volume that are not in the folder; absent if the Volume cannot be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_on_volume: Option<VolumeFiles>,
    /// Number of uploads since the watch was added; files saved together count as one.
    pub uploads: i64,
    /// When the Volume was last in sync with the folder, apart from invalid files.
    pub last_synced_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

/// State of a sync.
///
/// - `in_sync`: the Volume equals the folder.
/// - `pending`: changes are being synced or wait for the environment.
/// - `invalid`: some files cannot be uploaded; all others are in sync.
/// - `missing`: the folder does not exist. Nothing is deleted, and the sync resumes when it is back.
/// - `failed`: the last attempt failed and is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WatchState {
    InSync,
    Pending,
    Invalid,
    Missing,
    Failed,
}

/// How changes are detected.
///
/// - `inotify`: the system reports changes.
/// - `polling`: the folder is scanned every few seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WatchMode {
    Inotify,
    Polling,
}

/// A pending file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PendingFile {
    /// Path below the folder.
    pub file: String,
    pub action: PendingAction,
    /// What it waits for, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The pending action for a file on the Volume.
///
/// - `upload`: it is new or changed in the folder.
/// - `remove`: it was deleted in the folder.
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
    /// Line in the file, from 1, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    pub message: String,
}

/// A warning about a file that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileWarning {
    /// Path below the folder.
    pub file: String,
    pub message: String,
}

/// Files of the Volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeFiles {
    /// The first entries.
    pub files: Vec<VolumeFile>,
    pub total_entries: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeFile {
    /// Path below `dags/`.
    pub file: String,
    pub origin: VolumeFileOrigin,
}

/// The origin of a file on the Volume.
///
/// - `kept`: this watch uploaded it; it was deleted in the folder and kept without `delete`.
/// - `other`: it was not uploaded by this watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeFileOrigin {
    Kept,
    Other,
}

/// Response of `GET /v1/watches`, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WatchList {
    pub watches: Vec<Watch>,
    pub total_entries: u64,
}

/// Response of `DELETE /v1/watches/{watch_id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WatchRemoval {
    pub id: Uuid,
    pub environment: EnvironmentName,
    pub directory: String,
    /// Number of files of the watch that stay on the Volume.
    pub files_kept: u64,
}
