//! The metadata of an environment, read without Airflow.
//!
//! With SQLite the scheduler publishes `data/airflow.db` on the Volume as a whole and counts the publications in the
//! Dict. The daemon fetches a copy when the count has changed, and only reads it. With PostgreSQL a small Function
//! queries the server: the daemon does not know the connection string.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use airflow_serverless_api::{
    config::DatabaseKind,
    environment::{Environment, EnvironmentName},
    page::Page,
};
use chrono::{DateTime, Utc};
use modal_client::{Outcome, Volume};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sqlite_schema::row;
use sqlx::{
    FromRow, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow},
};
use tokio::sync::Mutex;

use super::{Airflow, Deployed};
use crate::{
    error::{Error, Result},
    report::chain,
};

const DATABASE: &str = "/data/airflow.db";
/// Bytes of a database that are written to disk at a time.
const WRITTEN_AT_ONCE: usize = 1 << 20;
/// Longest wait for a response of PostgreSQL, including the cold start of the querying container.
const QUERY_LIMIT: Duration = Duration::from_secs(60);

/// The scheduler's entry in the Dict about its publications.
#[derive(Debug, Deserialize)]
struct Published {
    generation: i64,
}

type Slot = Arc<Mutex<Option<Snapshot>>>;

/// One copy for each environment, fetched by one reader at a time.
pub(super) struct MetadataCache {
    folder: PathBuf,
    slots: Mutex<HashMap<EnvironmentName, Slot>>,
}

struct Snapshot {
    /// Creation time of the environment: a later one of the same name restarts the count.
    created_at: DateTime<Utc>,
    generation: i64,
    pool: SqlitePool,
}

impl MetadataCache {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, slots: Mutex::default() }
    }

    /// Forgets the copies of environments that no longer exist.
    async fn retain(&self, is_there: impl Fn(&str) -> bool) -> io::Result<()> {
        let mut slots = self.slots.lock().await;
        slots.retain(|name, _| is_there(name.as_str()));
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for path in entries.map(|entry| entry.map(|entry| entry.path())) {
            let path = path?;
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            if !is_there(name) {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    async fn slot(&self, environment: &EnvironmentName) -> Slot {
        self.slots.lock().await.entry(environment.clone()).or_default().clone()
    }
}

/// A row of either database, with fields matched by column name.
pub(super) trait Row: for<'r> FromRow<'r, SqliteRow> + DeserializeOwned + Send + Unpin {}

impl<T: for<'r> FromRow<'r, SqliteRow> + DeserializeOwned + Send + Unpin> Row for T {}

/// Read access to the metadata of one environment.
pub(super) struct Metadata {
    environment: EnvironmentName,
    source: Source,
}

enum Source {
    Sqlite(SqlitePool),
    Postgres(Box<Deployed>),
}

impl Metadata {
    /// Runs a SELECT that both databases understand, with parameters `$1`, `$2`…: strings, integers, nulls.
    pub async fn query<T: Row>(&self, sql: &str, parameters: &[Value]) -> Result<Vec<T>> {
        let environment = &self.environment;
        match &self.source {
            Source::Sqlite(pool) => {
                let failed = |source| Error::Metadata { environment: environment.clone(), source };
                let query = sqlx::query_as(sqlx::AssertSqlSafe(sql));
                let query = parameters.iter().fold(query, |query, value| match value {
                    Value::Number(number) => query.bind(number.as_i64()),
                    value => query.bind(value.as_str()),
                });
                query.fetch_all(pool).await.map_err(failed)
            }
            Source::Postgres(deployed) => {
                let start = || async { Ok(deployed.query_metadata().await?.spawn((sql, parameters)).await?) };
                match deployed.using_objects(start).await?.wait(QUERY_LIMIT).await {
                    Ok(Outcome::Finished(rows)) => Ok(rows),
                    Ok(Outcome::Pending) => Err(Error::SchedulerSilent(QUERY_LIMIT.as_secs())),
                    Err(modal_client::Error::Raised { message, .. }) => {
                        Err(Error::Database { environment: environment.clone(), message })
                    }
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

row! {
    #[derive(Deserialize)]
    struct Count {
        count: i64,
    }
}

impl Metadata {
    /// Counts rows; `rest` is the SQL after `FROM`.
    pub async fn count(&self, rest: &str, parameters: &[Value]) -> Result<i64> {
        let counts: Vec<Count> = self.query(&format!("SELECT count(*) AS count FROM {rest}"), parameters).await?;
        Ok(counts.first().map_or(0, |row| row.count))
    }
}

impl Airflow {
    /// Forgets everything cached for deleted environments.
    pub async fn forget_removed_environments(&self) -> Result<()> {
        let names: HashSet<EnvironmentName> = self.registry.environment_names().await?.into_iter().collect();
        self.objects.retain(|name| names.contains(name));
        self.plugins.retain(|name| names.contains(name));
        let path = &self.metadata.folder;
        let failed = |source| Error::Files { action: "clearing", path: path.display().to_string(), source };
        self.metadata.retain(|name| names.iter().any(|there| there.as_str() == name)).await.map_err(failed)
    }
}

impl Deployed {
    /// Returns one page of a table, by a SELECT with `LIMIT $1 OFFSET $2`, and the total number of rows.
    pub(super) async fn page<T: Row>(&self, sql: &str, table: &str, page: &Page) -> Result<(Vec<T>, i64)> {
        let metadata = self.metadata().await?;
        let rows = metadata.query(sql, &[json!(page.limit()), json!(page.offset())]).await?;
        Ok((rows, metadata.count(table, &[]).await?))
    }

    /// Returns the newest metadata.
    pub(super) async fn metadata(&self) -> Result<Metadata> {
        let source = match self.environment.config.database.kind {
            DatabaseKind::Sqlite => Source::Sqlite(self.using_objects(|| self.snapshot()).await?),
            DatabaseKind::Postgres => Source::Postgres(Box::new(self.clone())),
        };
        Ok(Metadata { environment: self.name().clone(), source })
    }

    async fn snapshot(&self) -> Result<SqlitePool> {
        let Environment { name, created_at, .. } = &*self.environment;
        let cache = &self.airflow.metadata;
        let slot = cache.slot(name).await;
        let mut slot = slot.lock().await;
        let generation = self.dict().await?.get::<Published>("published").await?.map(|published| published.generation);
        if let (Some(snapshot), Some(generation)) = (&*slot, generation)
            && snapshot.generation == generation
            && snapshot.created_at == *created_at
        {
            return Ok(snapshot.pool.clone());
        }
        // A deployed environment must have one.
        let path = cache.folder.join(format!("{name}.db"));
        if !fetch(&self.volume().await?, &path).await? {
            return Err(Error::DatabaseMissing(name.clone()));
        }
        let pool = match (open(&path).await, &*slot) {
            (Ok(pool), _) => pool,
            // The last copy that can be read shows more than none. The next read tries again.
            (Err(error), Some(snapshot)) if sqlite_schema::is_damage(&error) && snapshot.created_at == *created_at => {
                tracing::warn!(environment = %name, error = chain(&error), "the published metadata database is damaged");
                return Ok(snapshot.pool.clone());
            }
            (Err(source), _) => return Err(Error::Metadata { environment: name.clone(), source }),
        };
        // The number was read first: a publication in between is seen as newer the next time, never as older.
        *slot = Some(Snapshot { created_at: *created_at, generation: generation.unwrap_or(-1), pool: pool.clone() });
        Ok(pool)
    }
}

/// Replaces the copy; readers of the old one keep their open file. Streams to disk, as the database may be large.
/// Returns whether there is a database.
async fn fetch(volume: &Volume, path: &Path) -> Result<bool> {
    let failed = |action| move |source| Error::Files { action, path: path.display().to_string(), source };
    let partial = path.with_extension("partial");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed("creating the folder of"))?;
    }
    let file = File::create(&partial).map_err(failed("writing"))?;
    let mut file = BufWriter::with_capacity(WRITTEN_AT_ONCE, InPlace(file));
    if !volume.read_into(DATABASE, &mut file).await? {
        std::fs::remove_file(&partial).map_err(failed("removing"))?;
        return Ok(false);
    }
    file.flush().map_err(failed("writing"))?;
    std::fs::rename(&partial, path).map_err(failed("replacing"))?;
    Ok(true)
}

/// A writer for a possibly slow disk: other tasks of this thread move to another thread during writes.
struct InPlace(File);

impl Write for InPlace {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        tokio::task::block_in_place(|| self.0.write(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a copy.
///
/// # Errors
/// Also if it is no database: SQLite finds that out by the first query.
async fn open(path: &Path) -> sqlx::Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        // The copy never changes: no locks, no side files are needed.
        .immutable(true);
    // The connection opens the file now, so that a later replacement does not slip in under this generation.
    let pool = SqlitePoolOptions::new().min_connections(1).max_connections(1).connect_with(options).await?;
    sqlx::query("SELECT 1 FROM sqlite_schema LIMIT 1").fetch_optional(&pool).await?;
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn damaged_copy_is_refused_when_it_is_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dev.db");
        std::fs::write(&path, "damaged").expect("a file");
        let error = open(&path).await.expect_err("it is no database");
        assert!(sqlite_schema::is_damage(&error), "{error}");
    }
}
