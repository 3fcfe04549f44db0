//! Watches, and the files that they have uploaded.

use std::collections::HashSet;

use airflow_serverless_api::environment::EnvironmentName;
use chrono::{DateTime, Utc};
use sqlite_schema::row;
use sqlx::{QueryBuilder, Sqlite, Transaction};
use uuid::Uuid;

use super::{Result, Store, StoreError, decode, encode, from_word, query};
use crate::model::{Name, Record, Records, Stamp};

/// A watch as requested, and its progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRow {
    pub id: Uuid,
    pub environment: EnvironmentName,
    pub directory: String,
    pub deletes: bool,
    pub patterns: Vec<String>,
    /// Identity of the folder at the last sync.
    pub identity: Option<String>,
    pub uploads: i64,
    pub synced_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

/// The changes made by a round of a watch.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Files that are now on the Volume, with their records.
    pub recorded: Vec<(Name, Record)>,
    /// Files whose records are to be removed.
    pub forgotten: Vec<Name>,
    pub uploads: i64,
    /// Identity of the folder, if it has changed.
    pub identity: Option<String>,
}

impl Progress {
    pub fn is_empty(&self) -> bool {
        self.recorded.is_empty() && self.forgotten.is_empty() && self.uploads == 0 && self.identity.is_none()
    }
}

row! {
    struct Row {
        id: String,
        environment: String,
        directory: String,
        deletes: bool,
        patterns: String,
        identity: Option<String>,
        uploads: i64,
        synced_at: Option<DateTime<Utc>>,
        created_at: DateTime<Utc>,
    }
}

impl TryFrom<Row> for WatchRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: from_word("watch id", &row.id)?,
            environment: from_word("environment name", &row.environment)?,
            directory: row.directory,
            deletes: row.deletes,
            patterns: decode("watch's patterns", &row.patterns)?,
            identity: row.identity,
            uploads: row.uploads,
            synced_at: row.synced_at,
            created_at: row.created_at,
        })
    }
}

row! {
    struct FileRow {
        path: String,
        sha256: Option<Vec<u8>>,
        size: i64,
        modified: i64,
        changed: i64,
        inode: i64,
        imports: String,
        uploaded_at: i64,
        on_volume: Option<i64>,
    }
}

impl From<FileRow> for (Name, Record) {
    fn from(row: FileRow) -> Self {
        let stamp = Stamp {
            size: row.size.cast_unsigned(),
            modified: row.modified,
            changed: row.changed,
            inode: row.inode.cast_unsigned(),
        };
        let record = Record {
            // An invalid hash counts as no hash: the file is uploaded again.
            sha256: row.sha256.and_then(|hash| hash.try_into().ok()),
            stamp,
            imports: row.imports.into(),
            uploaded_at: row.uploaded_at,
            on_volume: row.on_volume,
        };
        (row.path.into(), record)
    }
}

/// SQLite limits the parameters of a statement to some thousands.
const ROWS_AT_A_TIME: usize = 1_000;

impl Store {
    /// Returns all watches, oldest first.
    pub async fn watches(&self) -> Result<Vec<WatchRow>> {
        let rows: Vec<Row> = sqlx::query_as("SELECT * FROM watch ORDER BY created_at, id")
            .fetch_all(&self.pool)
            .await
            .map_err(query("listing watches"))?;
        rows.into_iter().map(WatchRow::try_from).collect()
    }

    pub async fn watch(&self, id: Uuid) -> Result<Option<WatchRow>> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM watch WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(query("reading a watch"))?;
        row.map(WatchRow::try_from).transpose()
    }

    pub async fn insert_watch(&self, watch: &WatchRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO watch (id, environment, directory, deletes, patterns, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(watch.id.to_string())
        .bind(watch.environment.as_str())
        .bind(&watch.directory)
        .bind(watch.deletes)
        .bind(encode("watch's patterns", &watch.patterns)?)
        .bind(watch.created_at)
        .execute(&self.pool)
        .await
        .map_err(query("adding a watch"))?;
        Ok(())
    }

    /// Deletes a watch and the records of its uploads; returns the number of these files.
    pub async fn delete_watch(&self, id: Uuid) -> Result<u64> {
        let failed = query("removing a watch");
        let mut transaction = self.pool.begin().await.map_err(&failed)?;
        let files = sqlx::query("DELETE FROM watched_file WHERE watch = ?")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?
            .rows_affected();
        sqlx::query("DELETE FROM watch WHERE id = ?")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        Ok(files)
    }

    /// Returns the records of a watch's uploads.
    pub async fn watched_files(&self, id: Uuid) -> Result<Records> {
        let rows: Vec<FileRow> = sqlx::query_as("SELECT * FROM watched_file WHERE watch = ?")
            .bind(id.to_string())
            .fetch_all(&self.pool)
            .await
            .map_err(query("reading what a watch has uploaded"))?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Returns all paths that watches of an environment have uploaded.
    pub async fn watched_paths(&self, environment: &EnvironmentName) -> Result<HashSet<String>> {
        let paths: Vec<String> = sqlx::query_scalar("SELECT path FROM watched_file WHERE environment = ?")
            .bind(environment.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(query("reading what watches have uploaded"))?;
        Ok(paths.into_iter().collect())
    }

    /// Returns those of the paths that belong to another watch of the environment.
    pub async fn paths_of_other_watches(&self, watch: &WatchRow, paths: &[Name]) -> Result<Vec<(Name, String)>> {
        let failed = query("looking for files of other watches");
        let mut found = Vec::new();
        for paths in paths.chunks(ROWS_AT_A_TIME) {
            let mut select = QueryBuilder::<Sqlite>::new(
                "SELECT file.path, watch.directory FROM watched_file AS file JOIN watch ON watch.id = file.watch
                 WHERE file.environment = ",
            );
            select.push_bind(watch.environment.as_str());
            select.push(" AND file.watch <> ").push_bind(watch.id.to_string()).push(" AND file.path IN (");
            let mut list = select.separated(", ");
            for path in paths {
                list.push_bind(&**path);
            }
            select.push(")");
            let rows: Vec<(String, String)> = select.build_query_as().fetch_all(&self.pool).await.map_err(&failed)?;
            found.extend(rows.into_iter().map(|(path, directory)| (path.into(), directory)));
        }
        Ok(found)
    }

    /// Records that these files may be on the Volume from now on; skips files of other watches.
    pub async fn claim_files(&self, watch: &WatchRow, paths: &[Name]) -> Result<()> {
        if paths.is_empty() {
            return Ok(());
        }
        let failed = query("claiming files");
        let mut transaction = self.pool.begin().await.map_err(&failed)?;
        for paths in paths.chunks(ROWS_AT_A_TIME) {
            let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO watched_file (environment, path, watch) ");
            insert.push_values(paths, |mut row, path| {
                row.push_bind(watch.environment.as_str()).push_bind(&**path).push_bind(watch.id.to_string());
            });
            insert.push(" ON CONFLICT DO NOTHING");
            insert.build().execute(&mut *transaction).await.map_err(&failed)?;
        }
        transaction.commit().await.map_err(&failed)
    }

    /// Records the progress of a round in one transaction.
    pub async fn save_progress(&self, watch: &WatchRow, progress: &Progress, now: DateTime<Utc>) -> Result<()> {
        let failed = query("recording what a watch has done");
        let mut transaction = self.pool.begin().await.map_err(&failed)?;
        save_files(&mut transaction, watch, &progress.recorded).await?;
        for path in &progress.forgotten {
            sqlx::query("DELETE FROM watched_file WHERE environment = ? AND path = ? AND watch = ?")
                .bind(watch.environment.as_str())
                .bind(&**path)
                .bind(watch.id.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
        }
        sqlx::query(
            "UPDATE watch SET uploads = uploads + ?, identity = coalesce(?, identity), synced_at = ? WHERE id = ?",
        )
        .bind(progress.uploads)
        .bind(&progress.identity)
        .bind(now)
        .bind(watch.id.to_string())
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }
}

async fn save_files(
    transaction: &mut Transaction<'_, Sqlite>,
    watch: &WatchRow,
    files: &[(Name, Record)],
) -> Result<()> {
    for files in files.chunks(ROWS_AT_A_TIME) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO watched_file (environment, path, watch, sha256, size, modified, changed, inode, imports,
                                       uploaded_at, on_volume) ",
        );
        insert.push_values(files, |mut row, (path, record)| {
            row.push_bind(watch.environment.as_str())
                .push_bind(&**path)
                .push_bind(watch.id.to_string())
                .push_bind(record.sha256.map(|hash| hash.to_vec()))
                .push_bind(record.stamp.size.cast_signed())
                .push_bind(record.stamp.modified)
                .push_bind(record.stamp.changed)
                .push_bind(record.stamp.inode.cast_signed())
                .push_bind(&*record.imports)
                .push_bind(record.uploaded_at)
                .push_bind(record.on_volume);
        });
        insert.push(
            " ON CONFLICT (environment, path) DO UPDATE SET
                  sha256 = excluded.sha256, size = excluded.size, modified = excluded.modified,
                  changed = excluded.changed, inode = excluded.inode, imports = excluded.imports,
                  uploaded_at = excluded.uploaded_at, on_volume = excluded.on_volume
              WHERE watched_file.watch = excluded.watch",
        );
        insert.build().execute(&mut **transaction).await.map_err(query("recording what a watch has uploaded"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use airflow_serverless_api::{environment::Target, operation::OperationKind};

    use super::*;
    use crate::store::NewOperation;

    fn watch(directory: &str) -> WatchRow {
        WatchRow {
            id: Uuid::now_v7(),
            environment: "dev".parse().expect("a name"),
            directory: directory.to_owned(),
            deletes: true,
            patterns: vec!["*.py".to_owned()],
            identity: None,
            uploads: 0,
            synced_at: None,
            created_at: Utc::now(),
        }
    }

    async fn store(folder: &tempfile::TempDir, watches: &[&WatchRow]) -> Store {
        let store = Store::open(&folder.path().join("registry.db")).await.expect("a registry");
        let config = serde_json::from_value(serde_json::json!({"database": {"type": "sqlite"}})).expect("a config");
        let operation = NewOperation { id: Uuid::now_v7(), kind: OperationKind::Create };
        let name = "dev".parse().expect("a name");
        store
            .insert_environment(&name, (Target::Local, &config), &operation, Utc::now())
            .await
            .expect("an environment");
        for watch in watches {
            store.insert_watch(watch).await.expect("a watch");
        }
        store
    }

    #[tokio::test]
    async fn file_is_claimed_by_one_watch_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other) = (watch("/one"), watch("/other"));
        let store = store(&folder, &[&one, &other]).await;
        let names: Vec<Name> = vec!["a.py".into(), "b.py".into()];
        store.claim_files(&one, &names[..1]).await.expect("claimed");
        store.claim_files(&other, &names).await.expect("claimed");
        let taken = store.paths_of_other_watches(&other, &names).await.expect("paths");
        assert_eq!(taken, [("a.py".into(), "/one".to_owned())]);

        // Recording it cannot take it over either.
        let record = Record { sha256: Some([7; 32]), imports: "os".into(), on_volume: Some(3), ..Record::default() };
        let recorded = names.iter().map(|name| (name.clone(), record.clone())).collect();
        let progress = Progress { recorded, uploads: 1, identity: Some("1:2".to_owned()), ..Progress::default() };
        store.save_progress(&other, &progress, Utc::now()).await.expect("saved");
        assert_eq!(store.watched_files(one.id).await.expect("files"), [("a.py".into(), Record::default())].into());
        assert_eq!(store.watched_files(other.id).await.expect("files"), [("b.py".into(), record)].into());
        let row = store.watch(other.id).await.expect("a row").expect("a watch");
        assert_eq!((row.uploads, row.identity.as_deref()), (1, Some("1:2")));

        assert_eq!(store.delete_watch(one.id).await.expect("removed"), 1);
        assert_eq!(store.watches().await.expect("rows").len(), 1);
        let left = store.watched_paths(&other.environment).await.expect("paths");
        assert_eq!(left.into_iter().collect::<Vec<_>>(), ["b.py"]);
    }
}
