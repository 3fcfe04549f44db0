//! Migrates SQLite databases to the schema of this program; used for the daemon's registry and for Local Modal.
//!
//! Migrations are only ever added. Before one runs, a backup of the database is written next to it. A database written
//! by a newer program is refused and left untouched.

mod backup;
mod row;

use std::path::{Path, PathBuf};

use include_dir::Dir;
use sqlx::{
    Connection, SqlSafeStr, SqliteConnection,
    migrate::{Migration, MigrationType, Migrator},
};

/// Number of backups kept of a database.
pub const BACKUPS_KEPT: usize = 3;

/// Returns the migrations in a compiled-in folder, named like `0001_first_tables.sql`.
///
/// # Panics
/// If a file has another kind of name: a bug that shows at the first start.
pub fn migrator(folder: &Dir<'static>) -> Migrator {
    let migrations = folder.files().map(|file| {
        let name = file.path().file_stem().and_then(|name| name.to_str());
        let (version, description) =
            name.and_then(|name| name.split_once('_')).expect("a name like 0001_first_tables.sql");
        let version = version.parse().expect("a name that begins with a number");
        let sql = file.contents_utf8().expect("UTF-8").into_sql_str();
        Migration::new(version, description.replace('_', " ").into(), MigrationType::Simple, sql, false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// Why a database was left unchanged.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(
        "the database {path} has schema {found}, written by a newer version; this one ({program}) knows no schema after \
         {known}, and nothing was changed. Install the newer version again{}", or_backup(.backup)
    )]
    Newer { path: String, found: i64, known: i64, program: &'static str, backup: Option<PathBuf> },
    #[error("the schema of the database {path} cannot be read")]
    Read { path: String, source: sqlx::Error },
    #[error("the database {path} cannot be backed up to {backup}, so it was not migrated; make room for a copy of it")]
    Backup { path: String, backup: String, source: BackupError },
    #[error("the database {path} cannot be migrated from schema {from} to {to}")]
    Migrate { path: String, from: i64, to: i64, source: sqlx::migrate::MigrateError },
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Copy(#[from] sqlx::Error),
    #[error(transparent)]
    Files(#[from] std::io::Error),
}

/// Returns the backups of a database, oldest first.
pub fn backups(path: &Path) -> Vec<PathBuf> {
    backup::all(path).into_iter().map(|(_, _, path)| path).collect()
}

/// Whether an error means that the file is damaged: SQLITE_CORRUPT or SQLITE_NOTADB.
pub fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<u32>().ok());
    // The upper bits are the extended error code.
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

fn or_backup(backup: &Option<PathBuf>) -> String {
    let path = backup.as_ref().map(|path| format!(", or put the backup {} in its place", path.display()));
    path.unwrap_or_default()
}

/// The result of [`upgrade`].
#[derive(Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// The schema was current, or the database is new.
    None,
    /// The database was migrated; the backup has its earlier state.
    Migrated { from: i64, to: i64, backup: PathBuf },
}

/// Migrates the database at `path`, which `connection` has open, if necessary. `program` is the version for the error
/// about a newer database.
pub async fn upgrade(
    connection: &mut SqliteConnection,
    path: &Path,
    migrator: &Migrator,
    program: &'static str,
) -> Result<Upgrade, SchemaError> {
    let shown = || path.display().to_string();
    let read = |source| SchemaError::Read { path: shown(), source };
    let found = version(connection).await.map_err(read)?;
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
    if found > known {
        let backup = backup::newest(path, known);
        return Err(SchemaError::Newer { path: shown(), found, known, program, backup });
    }
    if found == known {
        return Ok(Upgrade::None);
    }
    let backup = if found > 0 { Some(keep(connection, path, found).await?) } else { None };
    let migrated = migrator.run(&mut *connection).await;
    migrated.map_err(|source| SchemaError::Migrate { path: shown(), from: found, to: known, source })?;
    Ok(backup.map_or(Upgrade::None, |backup| Upgrade::Migrated { from: found, to: known, backup }))
}

async fn keep(connection: &mut SqliteConnection, path: &Path, version: i64) -> Result<PathBuf, SchemaError> {
    let to = backup::path(path, version, chrono::Utc::now());
    let kept = backup::write(connection, path, &to).await;
    kept.map_err(|source| SchemaError::Backup {
        path: path.display().to_string(),
        backup: to.display().to_string(),
        source,
    })?;
    Ok(to)
}

/// Returns the number of the last applied migration; 0 for a database without any.
async fn version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    // A transaction, so that a concurrent creation of the database is seen either before or after.
    let mut transaction = connection.begin().await?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'")
        .fetch_one(&mut *transaction)
        .await?;
    if tables == 0 {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").fetch_one(&mut *transaction).await
}

#[cfg(test)]
mod tests;
