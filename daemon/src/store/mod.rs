//! The registry on disk: SQLite in WAL mode. All SQL of the registry is in this module and below.

mod environments;
mod events;
mod idempotency;
mod operations;
mod recent;
mod watches;

use std::{os::unix::fs::OpenOptionsExt, path::Path};

use include_dir::{Dir, include_dir};
use sqlite_schema::{SchemaError, Upgrade, upgrade};
use sqlx::{
    SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub use environments::{Ended, Outcome};
pub use idempotency::{KEYS_KEPT_FOR, KeptAnswer};
pub use operations::{NewOperation, OperationChange};
pub use watches::{Progress, WatchRow};

static MIGRATIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/migrations");

const JOURNAL_BYTES: &str = "1048576";

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the registry at {path} cannot be opened{}", way_out(.source))]
    Open { path: String, source: sqlx::Error },
    #[error("the registry cannot be used")]
    Schema(#[from] SchemaError),
    #[error("{operation} failed in the registry")]
    Query { operation: &'static str, source: sqlx::Error },
    #[error("the registry contains a {what} that this version cannot read")]
    Decode { what: &'static str, source: serde_json::Error },
}

/// Returns what to do about a damaged registry.
fn way_out(error: &sqlx::Error) -> &'static str {
    if sqlite_schema::is_damage(error) {
        ", because it is damaged. Replace it with a backup, or move it away with the files beside it whose names start \
         alike: `airflow-serverless env list` then lists the environments that are still deployed, and `env adopt` \
         registers them"
    } else {
        ""
    }
}

impl StoreError {
    /// Whether a newer daemon wrote it.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Schema(SchemaError::Newer { .. }))
    }
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

fn migrations() -> Migrator {
    sqlite_schema::migrator(&MIGRATIONS)
}

/// Adds the name of the operation to a query's error.
fn query(operation: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Query { operation, source }
}

fn decode<T: serde::de::DeserializeOwned>(what: &'static str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|source| StoreError::Decode { what, source })
}

fn encode<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| StoreError::Decode { what, source })
}

/// Returns the serialized name of a unit variant, for columns with an enumeration.
fn word<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String> {
    Ok(encode(what, value)?.trim_matches('"').to_owned())
}

fn from_word<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    decode(what, &format!("\"{text}\""))
}

/// A change with all its parameters.
type Statement = sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

#[derive(Clone)]
pub struct Store {
    pool: SqlitePool,
    recent: recent::Recent,
}

impl Store {
    pub async fn open(path: &Path) -> Result<Self> {
        let at = || path.display().to_string();
        let open = |source| StoreError::Open { path: at(), source };
        // SQLite would create it readable for others; files next to it get the same mode.
        let private = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        drop(private.map_err(|error| open(error.into()))?);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // The WAL shrinks again after a busy hour.
            .pragma("journal_size_limit", JOURNAL_BYTES)
            // Deleted data must not remain in free pages.
            .pragma("secure_delete", "ON")
            // Accepted changes survive a power failure.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        // A connection to a file does not break: testing it before each use would double the cost.
        let pool = SqlitePoolOptions::new().max_connections(4).test_before_acquire(false);
        let pool = pool.connect_with(options).await.map_err(open)?;
        let mut connection = pool.acquire().await.map_err(open)?;
        let version = env!("CARGO_PKG_VERSION");
        match upgrade(&mut connection, path, &migrations(), version).await? {
            Upgrade::Migrated { from, to, backup } => {
                tracing::info!(from, to, backup = %backup.display(), "the registry was migrated to a new schema");
            }
            Upgrade::None => {}
        }
        drop(connection);
        Ok(Self { pool, recent: recent::Recent::default() })
    }

    /// Begins a write transaction, which waits for its turn now; upgrading a read transaction later could fail.
    async fn begin(
        &self,
        failed: impl Fn(sqlx::Error) -> StoreError,
    ) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)
    }

    /// Applies a change of environments. Completes even if the caller is dropped, so that the cache is invalidated
    /// afterwards.
    async fn change<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let recent = self.recent.clone();
        let change = tokio::spawn(async move {
            let done = work.await;
            recent.forget();
            done
        });
        // The task is never aborted, so an error is its panic.
        change.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Checks that the registry responds.
    pub async fn ping(&self) -> Result<()> {
        let answer = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM environment").fetch_one(&self.pool).await;
        answer.map(|_| ()).map_err(query("looking whether it answers"))
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use airflow_serverless_api::{
        environment::{EnvironmentState, ListEnvironments, Target},
        event::EventKind,
        operation::{ListOperations, OperationKind, OperationState},
    };

    use super::*;
    use crate::model::Deletion;

    /// Opens the registry of this schema, as a daemon of that time left it. Each release that changes the schema adds
    /// one: `cargo run -p integration-tests --example freeze_registry`.
    async fn frozen(schema: u32) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry.db");
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
        std::fs::copy(data.join(format!("registry-v{schema}.db")), &path).expect("a copy");
        let store = Store::open(&path).await.expect("the registry");
        (folder, store)
    }

    /// Without a frozen registry, later changes would never be tested against this schema.
    #[test]
    fn newest_schema_has_a_frozen_registry() {
        let newest = migrations().iter().map(|migration| migration.version).max().expect("migrations");
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
        assert!(data.join(format!("registry-v{newest}.db")).exists(), "run the example freeze_registry");
    }

    #[tokio::test]
    async fn registry_of_schema_5_is_read() {
        let (_folder, store) = frozen(5).await;
        let dev = "dev".parse().expect("a name");
        let environment = store.environment(&dev).await.expect("an answer").expect("the environment");
        assert_eq!((environment.generation, environment.state), (1, EnvironmentState::Ready));
        assert_eq!((environment.target, environment.config.scheduler.interval_seconds), (Target::Local, 3600));
        assert!(environment.conditions.iter().all(|condition| condition.status), "{environment:?}");

        let (operations, total) = store.operations(&ListOperations::default()).await.expect("operations");
        assert_eq!((operations[0].state, operations[0].steps.len(), total), (OperationState::Succeeded, 8, 1));
        let events = store.events(0, Some(&dev), 100).await.expect("events");
        let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
        for kind in [EventKind::EnvironmentCreated, EventKind::OperationStep, EventKind::EnvironmentReady] {
            assert!(kinds.contains(&kind), "{kinds:?}");
        }
        assert_eq!(store.newest_event().await.expect("the newest"), events.last().expect("an event").id);

        let known = store.begin_idempotent("frozen", "another request", chrono::Utc::now()).await.expect("a key");
        assert_ne!(known.request, "another request");
        let answer = known.answer().expect("an answer");
        let location = format!("/v1/operations/{}", operations[0].id);
        assert_eq!((answer.status, answer.location), (202, Some(location)));

        let watches = store.watches().await.expect("watches");
        let [watch] = watches.as_slice() else { panic!("{watches:?}") };
        assert_eq!((watch.directory.as_str(), watch.deletes, watch.uploads), ("/home/me/dags", true, 1));
        let files = store.watched_files(watch.id).await.expect("files");
        let (name, file) = files.iter().next().expect("a file");
        assert_eq!((&**name, file.stamp.size, file.sha256.is_some()), ("notes.txt", 7, true));
        store.close().await;
    }

    #[tokio::test]
    async fn registry_of_schema_1_is_read() {
        let (_folder, store) = frozen(1).await;
        let all = ListEnvironments::default();
        let (environments, _) = store.environments(&all).await.expect("environments");
        let [dev] = environments.as_slice() else { panic!("{environments:?}") };
        assert_eq!((dev.name.as_str(), dev.generation, dev.state), ("dev", 1, EnvironmentState::Ready));
        assert_eq!((dev.config.scheduler.interval_seconds, dev.config.executor.parallelism), (3600, 2));
        let operation = store.latest_operation(&dev.name).await.expect("the operation").expect("an operation");
        assert_eq!((operation.revision, operation.steps.len()), (21, 8));
        store.close().await;
    }

    /// The result for an earlier generation must not end the current operation.
    #[tokio::test]
    async fn outdated_generation_cannot_end_an_operation() {
        let (_folder, store) = frozen(1).await;
        let (dev, now) = ("dev".parse().expect("a name"), chrono::Utc::now());
        let operation = || NewOperation { id: uuid::Uuid::now_v7(), kind: OperationKind::Delete };
        store.delete_environment(&dev, Deletion::Keep, &operation(), now).await.expect("a change");
        let purge = operation();
        store.delete_environment(&dev, Deletion::Purge, &purge, now).await.expect("another change");
        let ended = OperationChange { id: purge.id, state: OperationState::Succeeded, steps: &[], error: None };
        let outdated = store.forget_environment(&dev, 2, Some(ended), now).await.expect("an answer");
        assert_eq!(outdated, Ended::Outdated);
        let running = store.latest_operation(&dev).await.expect("an answer").expect("an operation");
        assert_eq!((running.id, running.state), (purge.id, OperationState::Running));
        assert_eq!(store.deletion(&dev).await.expect("an answer"), Some(Deletion::Purge));
        let gone = store.forget_environment(&dev, 3, Some(ended), now).await.expect("an answer");
        assert_eq!(gone, Ended::Recorded { was_running: true });
        assert!(store.environment(&dev).await.expect("an answer").is_none());
        store.close().await;
    }

    #[tokio::test]
    async fn newer_registry_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry.db");
        let store = Store::open(&path).await.expect("a registry");
        let newer = "INSERT INTO _sqlx_migrations VALUES (999, 'newer', current_timestamp, TRUE, x'00', 0)";
        sqlx::query(newer).execute(&store.pool).await.expect("a newer schema");
        store.close().await;
        let Err(StoreError::Schema(error)) = Store::open(&path).await else { panic!("it was not refused") };
        assert!(matches!(error, SchemaError::Newer { found: 999, .. }), "{error}");
    }
}
