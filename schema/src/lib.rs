//! Brings a SQLite database to the schema of this program, as the daemon's registry and Local Modal both need it.
//!
//! Migrations are only ever added. Before one runs, the database as it was is kept beside it; a database that a newer
//! program wrote is refused, and not touched.

mod backup;
mod row;

use std::path::{Path, PathBuf};

use include_dir::Dir;
use sqlx::{
    Connection, SqlSafeStr, SqliteConnection,
    migrate::{Migration, MigrationType, Migrator},
};

/// How many backups of a database are kept, the newest ones.
pub const BACKUPS_KEPT: usize = 3;

/// The migrations in a folder that is compiled in, each named as in `0001_first_tables.sql`.
///
/// # Panics
/// If a file there has another kind of name: a mistake of the program's, which its first start shows.
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

/// Why a database was left as it is.
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

/// The copies of a database from before its migrations, oldest first.
pub fn backups(path: &Path) -> Vec<PathBuf> {
    backup::all(path).into_iter().map(|(_, _, path)| path).collect()
}

/// Whether an error says that the file is not a whole database: SQLITE_CORRUPT or SQLITE_NOTADB.
pub fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<u32>().ok());
    // The rest of the number tells more of where.
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

fn or_backup(backup: &Option<PathBuf>) -> String {
    let path = backup.as_ref().map(|path| format!(", or put the backup {} in its place", path.display()));
    path.unwrap_or_default()
}

/// What was done to bring a database to the schema of this program.
#[derive(Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// It had it, or there was no database before.
    None,
    /// It was migrated; as it was it is kept here.
    Migrated { from: i64, to: i64, backup: PathBuf },
}

/// Migrates the database at `path`, to which `connection` leads, if it has to be. `program` is the version to name when
/// the database is of a newer one.
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

/// The number of the last migration that was applied; 0 for a database without any.
async fn version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    // A database that two processes create at once is looked at as it is before or after, not in between.
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
