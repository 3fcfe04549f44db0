//! Backups of the metadata database in SQLite: files on the Volume, made and loaded by the scheduler.

use airflow_serverless_api::{
    backup::{Backup, BackupList, RolledBack},
    config::DatabaseKind,
};
use chrono::NaiveDateTime;
use serde_json::json;

use super::Deployed;
use crate::error::{Error, Reason, Result, Subject};

const FOLDER: &str = "/data/backups";

impl Deployed {
    /// Lists backups, newest first.
    pub async fn list_backups(&self) -> Result<BackupList> {
        let entries = self.volume().await?.list(FOLDER, false).await?;
        let mut backups: Vec<_> = entries.iter().filter_map(|entry| backup(&entry.path, entry.size)).collect();
        backups.sort_by(|one, other| other.name.cmp(&one.name));
        let total_entries = backups.len() as i64;
        Ok(BackupList { backups, total_entries })
    }

    /// Has the scheduler replace its database with a backup, the newest one if none is named. An environment may need
    /// this to become ready.
    pub async fn roll_back(&self, name: Option<String>) -> Result<RolledBack> {
        if self.environment.config.database.kind == DatabaseKind::Postgres {
            let message = "the metadata is in PostgreSQL: restore it with the tools of its server".to_owned();
            return Err(Error::Refused { subject: Subject::Backup, reason: Reason::Invalid, message });
        }
        let known = self.list_backups().await?.backups;
        let found = match &name {
            Some(name) => known.into_iter().find(|backup| backup.name == *name),
            None => known.into_iter().find(|backup| !backup.replaced),
        };
        let Some(found) = found else {
            return Err(match name {
                Some(name) => Error::NotFound(Subject::Backup, name, self.name().clone()),
                None => Error::NoBackup(self.name().clone()),
            });
        };
        self.command((Subject::Backup, "roll_back"), json!({"backup": found.name})).await
    }
}

/// Parses the path of a file as a backup.
fn backup(path: &str, bytes: u64) -> Option<Backup> {
    let name = path.rsplit('/').next()?;
    let stem = name.strip_suffix(".db")?;
    let (stem, replaced) = stem.strip_suffix(".replaced").map_or((stem, false), |stem| (stem, true));
    let (time, generation) = stem.split_once('-')?;
    generation.parse::<u64>().ok()?;
    let created_at = NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%SZ").ok()?.and_utc();
    Some(Backup { name: name.to_owned(), created_at, bytes, replaced })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_and_damaged_files_are_not_backups() {
        let found = backup("data/backups/20261129T120000Z-417.db", 9).expect("a backup");
        assert_eq!((found.name.as_str(), found.bytes), ("20261129T120000Z-417.db", 9));
        assert_eq!(found.created_at.to_rfc3339(), "2026-11-29T12:00:00+00:00");
        let replaced = |name| backup(name, 9).map(|found| found.replaced);
        assert_eq!(replaced("20261129T120000Z-417.db"), Some(false));
        assert_eq!(replaced("20261129T120000Z-417.replaced.db"), Some(true));
        for other in ["20261129T120000Z-417.damaged.db", "20261129T120000Z-417.partial", "x-1.db", "notes"] {
            assert_eq!(backup(other, 9), None, "{other}");
        }
    }
}
