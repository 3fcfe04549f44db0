//! The metadata database as the scheduler last published it, read here without any Python.
//!
//! The scheduler publishes `data/airflow.db` on the Volume as a whole and counts the publications in the Dict. A copy
//! is fetched when the count has moved on, and only ever read.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use airflow_serverless_api::environment::EnvironmentName;
use serde::Deserialize;
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::sync::Mutex;

use super::Airflow;
use crate::error::{Error, Result};

const DATABASE: &str = "/data/airflow.db";

/// The scheduler's word in the Dict on what it has published.
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
    generation: i64,
    pool: SqlitePool,
}

impl MetadataCache {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, slots: Mutex::default() }
    }

    async fn slot(&self, environment: &EnvironmentName) -> Slot {
        self.slots.lock().await.entry(environment.clone()).or_default().clone()
    }
}

impl Airflow {
    /// The newest published metadata; `None` before the database was initialised.
    pub(super) async fn metadata(&self, environment: &EnvironmentName) -> Result<Option<SqlitePool>> {
        let volume = self.volume(environment).await?;
        let dict = self.client.dict(&environment.dict()).await?;
        let slot = self.metadata.slot(environment).await;
        let mut slot = slot.lock().await;
        let generation = dict.get::<Published>("published").await?.map(|published| published.generation);
        if let (Some(snapshot), Some(generation)) = (&*slot, generation)
            && snapshot.generation == generation
        {
            return Ok(Some(snapshot.pool.clone()));
        }
        let Some(content) = volume.read(DATABASE).await? else {
            return Ok(None);
        };
        let path = self.metadata.folder.join(format!("{environment}.db"));
        replace(&path, &content)?;
        let pool = open(&path).await.map_err(failed(environment))?;
        // The number was read first: a publication in between is seen as newer the next time, never as older.
        *slot = Some(Snapshot { generation: generation.unwrap_or(-1), pool: pool.clone() });
        Ok(Some(pool))
    }
}

/// Puts the new copy in the old one's place; readers of the old one keep their file.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let failed = |action| move |source| Error::Files { action, path: path.display().to_string(), source };
    let partial = path.with_extension("partial");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed("creating the folder of"))?;
    }
    std::fs::write(&partial, content).map_err(failed("writing"))?;
    std::fs::rename(&partial, path).map_err(failed("replacing"))
}

async fn open(path: &Path) -> sqlx::Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        // The copy never changes: no locks, no side files.
        .immutable(true);
    // The connection opens the file now, so that a later replacement does not slip in under this generation.
    SqlitePoolOptions::new().min_connections(1).max_connections(1).connect_with(options).await
}

/// Names the environment in errors of its metadata.
pub(super) fn failed(environment: &EnvironmentName) -> impl Fn(sqlx::Error) -> Error {
    let environment = environment.clone();
    move |source| Error::Metadata { environment: environment.clone(), source }
}
