//! Backups of a database from before its migrations: `registry.db.v1-20260131T120000Z.backup`.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;

use super::{BACKUPS_KEPT, BackupError};

const SUFFIX: &str = ".backup";

/// Returns the path for a backup of a database with this schema.
pub fn path(database: &Path, version: i64, now: DateTime<Utc>) -> PathBuf {
    database.with_file_name(format!("{}.v{version}-{}{SUFFIX}", name(database), now.format("%Y%m%dT%H%M%SZ")))
}

/// Writes a backup readable by this user only, and removes the oldest ones above the limit.
pub async fn write(connection: &mut SqliteConnection, database: &Path, to: &Path) -> Result<(), BackupError> {
    let partial = to.with_extension("partial");
    // SQLite fills an existing empty file, which keeps its mode.
    remove_file(&partial)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    let copied = sqlx::query("VACUUM INTO ?").bind(partial.display().to_string()).execute(connection).await;
    if let Err(error) = copied {
        remove_file(&partial)?;
        return Err(error.into());
    }
    File::open(&partial)?.sync_all()?;
    fs::rename(&partial, to)?;
    File::open(to.parent().unwrap_or(to))?.sync_all()?;
    let mut backups = all(database);
    backups.truncate(backups.len().saturating_sub(BACKUPS_KEPT));
    for (_, _, oldest) in backups {
        remove_file(&oldest)?;
    }
    Ok(())
}

/// Returns the newest backup whose schema is at most this one.
pub fn newest(database: &Path, version: i64) -> Option<PathBuf> {
    all(database).into_iter().rev().find(|(_, of, _)| *of <= version).map(|(_, _, path)| path)
}

/// Returns the backups of a database, oldest first: time, schema and path.
pub fn all(database: &Path) -> Vec<(String, i64, PathBuf)> {
    let prefix = format!("{}.v", name(database));
    let entries = database.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let rest = path.file_name()?.to_str()?.strip_prefix(&prefix)?.strip_suffix(SUFFIX)?;
            let (version, when) = rest.split_once('-')?;
            Some((when.to_owned(), version.parse().ok()?, path.clone()))
        })
        .collect();
    found.sort();
    found
}

fn name(database: &Path) -> String {
    database.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
