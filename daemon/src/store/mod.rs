//! The registry on disk: SQLite in WAL mode. All SQL of the registry is below this module.

mod environments;
mod events;
mod idempotency;
mod operations;
mod watches;

use std::path::Path;

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub use environments::Outcome;
pub use idempotency::KeptAnswer;
pub use operations::NewOperation;
pub use watches::{Progress, WatchRow};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the registry at {path} cannot be opened")]
    Open { path: String, source: sqlx::Error },
    #[error("the registry at {path} cannot be migrated")]
    Migrate { path: String, source: sqlx::migrate::MigrateError },
    #[error("{operation} failed in the registry")]
    Query { operation: &'static str, source: sqlx::Error },
    #[error("the registry holds a {what} that this version cannot read")]
    Decode { what: &'static str, source: serde_json::Error },
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Gives a query's error the name of what was being done.
fn query(operation: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Query { operation, source }
}

fn decode<T: serde::de::DeserializeOwned>(what: &'static str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|source| StoreError::Decode { what, source })
}

fn encode<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| StoreError::Decode { what, source })
}

/// A unit variant under its wire name, for columns that hold one word.
fn word<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String> {
    Ok(encode(what, value)?.trim_matches('"').to_owned())
}

fn from_word<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    decode(what, &format!("\"{text}\""))
}

#[derive(Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    pub async fn open(path: &Path) -> Result<Self> {
        let at = || path.display().to_string();
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What was accepted survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Open { path: at(), source })?;
        sqlx::migrate!().run(&pool).await.map_err(|source| StoreError::Migrate { path: at(), source })?;
        Ok(Self { pool })
    }

    /// A transaction that will write: it waits for its turn now, as one that began by reading could not.
    async fn begin(
        &self,
        failed: impl Fn(sqlx::Error) -> StoreError,
    ) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}
