//! Databases whose records are not encrypted yet: those of versions before schema 3.

use std::{fs, io, path::Path};

use sqlx::{Connection, Row, SqliteConnection};

use super::{StoreError, seal::Seal};

/// The `PRAGMA user_version` of a file without plain text.
const SEALED: i64 = 1;

/// Encrypts all plain text, and leaves no trace of it in the file or in its backups. If it is interrupted, it starts
/// over.
pub async fn seal_all(connection: &mut SqliteConnection, path: &Path, seal: &Seal) -> Result<(), StoreError> {
    let version: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await.map_err(StoreError::Read)?;
    if version >= SEALED {
        return Ok(());
    }
    let failed = |error: sqlx::Error| StoreError::Write(error.to_string());
    let mut transaction = connection.begin().await.map_err(failed)?;
    let found = sqlx::query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'plain'");
    if found.fetch_optional(&mut *transaction).await.map_err(StoreError::Read)?.is_some() {
        let rows = sqlx::query("SELECT kind, id, value, payload FROM plain").fetch_all(&mut *transaction).await;
        for row in rows.map_err(StoreError::Read)? {
            let read = |column| row.try_get::<String, _>(column).map_err(StoreError::Read);
            let (kind, id, value) = (read(0)?, read(1)?, read(2)?);
            let payload: Vec<u8> = row.try_get(3).map_err(StoreError::Read)?;
            let sealed = seal.close(&kind, &id, &value, &payload)?;
            let insert = sqlx::query("INSERT INTO record (kind, id, sealed) VALUES (?, ?, ?)");
            insert.bind(kind).bind(id).bind(sealed).execute(&mut *transaction).await.map_err(failed)?;
        }
        sqlx::query("DROP TABLE plain").execute(&mut *transaction).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    // Freed pages and the write-ahead log still have their earlier contents.
    for statement in ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
        sqlx::query(statement).execute(&mut *connection).await.map_err(failed)?;
    }
    for copy in sqlite_schema::backups(path) {
        match fs::remove_file(&copy) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::Write(format!("{} cannot be removed: {error}", copy.display())));
            }
            _ => {}
        }
    }
    sqlx::query("PRAGMA user_version = 1").execute(&mut *connection).await.map_err(failed)?;
    Ok(())
}
