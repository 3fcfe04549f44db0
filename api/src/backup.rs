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
    /// Whether it is the database that a roll-back replaced. Such a one is loaded only by its name.
    #[serde(default)]
    pub replaced: bool,
}

/// Answer of `GET …/backups`, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupList {
    pub backups: Vec<Backup>,
    pub total_entries: i64,
}

/// Body of `POST …/rollback`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// The name of the backup to load; if absent, the newest one that is not a replaced database.
    #[serde(default)]
    pub backup: Option<String>,
}

/// Answer of `POST …/rollback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolledBack {
    /// The name of the backup that is the database now.
    pub backup: String,
}
