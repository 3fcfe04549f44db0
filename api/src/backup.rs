//! Backups of the metadata database in SQLite, which the scheduler makes and keeps on the Volume.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backup {
    /// Such as `20261129T120000Z-417.db`.
    pub name: String,
    pub created_at: DateTime<Utc>,
    pub bytes: u64,
    /// Whether it is a database that a rollback replaced. Such a backup is restored only by name.
    #[serde(default)]
    pub replaced: bool,
}

/// Response of `GET …/backups`, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupList {
    pub backups: Vec<Backup>,
    pub total_entries: i64,
}

/// Body of `POST …/rollback`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// Name of the backup to restore; default: the newest one that no rollback has replaced.
    #[serde(default)]
    pub backup: Option<String>,
}

/// Response of `POST …/rollback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolledBack {
    /// Name of the restored backup.
    pub backup: String,
}
