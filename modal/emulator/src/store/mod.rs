//! Durable records: one SQLite table, one writer task, many changes per commit.
//!
//! The authoritative state lives in memory; the store only has to repeat it after a restart. Changes are queued in the
//! order in which they were made (the queue is filled under the state's lock) and whoever promised durability waits
//! for the commit that holds its change.

mod plain;
mod seal;

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use include_dir::{Dir, include_dir};
use serde::{Serialize, de::DeserializeOwned};
use sqlite_schema::{SchemaError, upgrade};
use sqlx::{
    ConnectOptions, Connection, QueryBuilder, Row, Sqlite, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use self::seal::{Seal, SealError};

static MIGRATIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/migrations");

/// Most changes of one commit; more waiters than this share the next one.
const COMMIT_LIMIT: usize = 2_000;
/// Rows of one statement. Each statement is a trip to the database's thread and back, which costs more than its rows.
const STATEMENT_ROWS: usize = 64;

/// The store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database could not be opened")]
    Open(#[source] sqlx::Error),
    #[error(
        "the database {path} is damaged. Put a copy in its place if there is one{}; or move it away, and all files beside it \
         whose names begin the same: then apps, Dicts, Queues and Secrets are gone, and the files of Volumes stay in \
         {volumes}", beside(.path)
    )]
    Damaged {
        path: String,
        volumes: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("the database cannot be used")]
    Schema(#[from] SchemaError),
    #[error("the database {path} could not be made readable for its owner alone")]
    Mode { path: String, source: io::Error },
    #[error("the database's records cannot be encrypted or decrypted")]
    Seal(#[from] SealError),
    #[error("the database could not be read")]
    Read(#[source] sqlx::Error),
    #[error("the database holds a {kind} record {id:?} that this version cannot read")]
    Decode {
        kind: String,
        id: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the database could not be written: {0}")]
    Write(String),
    #[error("the database is closed")]
    Closed,
}

/// Names the copies that were made before migrations.
fn beside(path: &str) -> String {
    let found = sqlite_schema::backups(Path::new(path));
    found.last().map(|backup| format!(", such as {}", backup.display())).unwrap_or_default()
}

impl StoreError {
    /// Names the file and the way out, if the error is of a damaged one.
    fn explained(self, path: &Path) -> Self {
        match self {
            Self::Open(source) | Self::Read(source) | Self::Schema(SchemaError::Read { source, .. })
                if sqlite_schema::is_damage(&source) =>
            {
                let volumes = path.with_file_name("volumes").display().to_string();
                Self::Damaged { path: path.display().to_string(), volumes, source }
            }
            other => other,
        }
    }

    /// Whether a newer version wrote the database.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Schema(SchemaError::Newer { .. }))
    }
}

/// An object that outlives the process.
pub trait Record: Serialize + DeserializeOwned {
    /// The name of its kind in the database.
    const KIND: &'static str;
    /// Its id, unique within the kind; records are loaded in the order of their ids.
    fn id(&self) -> &str;
    /// Bytes kept beside the JSON.
    fn payload(&self) -> Bytes {
        Bytes::new()
    }
    /// Takes the payload back after loading.
    fn set_payload(&mut self, _payload: Bytes) {}
}

/// One row to write or to remove.
#[derive(Debug)]
pub enum Change {
    Put { kind: &'static str, id: String, value: String, payload: Bytes },
    Delete { kind: &'static str, id: String },
}

impl Change {
    /// Writes `record` as it is now.
    pub fn put<R: Record>(record: &R) -> Self {
        let value = serde_json::to_string(record).unwrap_or_else(|error| {
            // Records are plain structs with string keys: there is nothing in them that JSON cannot hold.
            unreachable!("a {} record is always valid JSON: {error}", R::KIND)
        });
        Self::Put { kind: R::KIND, id: record.id().to_owned(), value, payload: record.payload() }
    }

    /// Removes the record of kind `R` with this id.
    pub fn delete<R: Record>(id: &str) -> Self {
        Self::Delete { kind: R::KIND, id: id.to_owned() }
    }

    fn key(&self) -> (&'static str, &str) {
        match self {
            Self::Put { kind, id, .. } | Self::Delete { kind, id } => (kind, id),
        }
    }
}

/// A row as it was loaded.
pub struct StoredRow {
    pub kind: String,
    id: String,
    value: String,
    payload: Bytes,
}

impl StoredRow {
    /// The row that a change leaves, if it leaves one.
    #[cfg(test)]
    pub fn after(change: Change) -> Option<Self> {
        match change {
            Change::Put { kind, id, value, payload } => Some(Self { kind: kind.to_owned(), id, value, payload }),
            Change::Delete { .. } => None,
        }
    }

    /// Decodes the row into the record it was.
    pub fn decode<R: Record>(self) -> Result<R, StoreError> {
        let mut record: R = serde_json::from_str(&self.value).map_err(|source| StoreError::Decode {
            kind: self.kind,
            id: self.id,
            source,
        })?;
        record.set_payload(self.payload);
        Ok(record)
    }
}

type Ack = oneshot::Sender<Result<(), StoreError>>;

struct Batch {
    changes: Vec<Change>,
    done: Ack,
}

/// The way to the writer task.
pub struct Store {
    // Not bounded: what is queued is bounded by the requests in flight, each of which waits for its commit.
    queue: mpsc::UnboundedSender<Batch>,
    writer: JoinHandle<()>,
}

/// A queued batch of changes.
#[must_use = "a change is only durable once it was awaited"]
pub struct Pending(Option<oneshot::Receiver<Result<(), StoreError>>>);

impl Pending {
    /// Waits for the commit.
    pub async fn committed(self) -> Result<(), StoreError> {
        match self.0 {
            None => Ok(()),
            Some(done) => done.await.unwrap_or(Err(StoreError::Closed)),
        }
    }
}

impl Store {
    /// Opens (or creates) the database, brings its schema up to date and reads every record.
    /// Should the writer fail, `failed` is cancelled.
    pub async fn open(path: &Path, failed: CancellationToken) -> Result<(Self, Vec<StoredRow>), StoreError> {
        Self::open_whole(path, failed).await.map_err(|error| error.explained(path))
    }

    async fn open_whole(path: &Path, failed: CancellationToken) -> Result<(Self, Vec<StoredRow>), StoreError> {
        keep_private(path).map_err(|source| StoreError::Mode { path: path.display().to_string(), source })?;
        let mut connection = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .pragma("secure_delete", "ON")
            .synchronous(SqliteSynchronous::Full)
            // Nobody else writes to it; whoever looks at it is quick.
            .busy_timeout(Duration::from_secs(1))
            .connect()
            .await
            .map_err(StoreError::Open)?;
        upgrade(&mut connection, path, &sqlite_schema::migrator(&MIGRATIONS), env!("CARGO_PKG_VERSION")).await?;
        let is_used = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM record)").fetch_one(&mut connection).await;
        let seal = Seal::of(path, is_used.map_err(StoreError::Read)?)?;
        plain::seal_all(&mut connection, path, &seal).await?;
        let rows = read(&mut connection, &seal).await?;
        let (queue, batches) = mpsc::unbounded_channel();
        let guard = failed.drop_guard();
        let writer = tokio::spawn(async move {
            write_batches(connection, seal, batches).await;
            guard.disarm();
        });
        Ok((Self { queue, writer }, rows))
    }

    /// Queues changes behind all earlier ones. Call it under the lock under which they were made.
    pub fn queue(&self, changes: Vec<Change>) -> Pending {
        if changes.is_empty() {
            return Pending(None);
        }
        let (done, receiver) = oneshot::channel();
        // A closed queue drops `done`, which the waiter sees as `StoreError::Closed`.
        drop(self.queue.send(Batch { changes, done }));
        Pending(Some(receiver))
    }

    /// A batch of nothing, which is committed when all before it are.
    pub fn barrier(&self) -> Pending {
        let (done, receiver) = oneshot::channel();
        drop(self.queue.send(Batch { changes: Vec::new(), done }));
        Pending(Some(receiver))
    }

    /// Writes what is queued and closes the database.
    pub async fn close(self) {
        drop(self.queue);
        if let Err(error) = self.writer.await {
            tracing::error!(%error, "the database writer stopped early");
        }
    }
}

/// Makes the file, or closes it to other users. What SQLite makes beside it gets the same mode.
fn keep_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    for end in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match fs::set_permissions(&name, Permissions::from_mode(0o600)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// All records.
async fn read(connection: &mut SqliteConnection, seal: &Seal) -> Result<Vec<StoredRow>, StoreError> {
    let rows = sqlx::query("SELECT kind, id, sealed FROM record ORDER BY kind, id").fetch_all(connection).await;
    let rows = rows.map_err(StoreError::Read)?.into_iter().map(|row| {
        let (kind, id): (String, String) =
            row.try_get(0).and_then(|kind| Ok((kind, row.try_get(1)?))).map_err(StoreError::Read)?;
        let (value, payload) = seal.open(&kind, &id, row.try_get(2).map_err(StoreError::Read)?)?;
        Ok(StoredRow { kind, id, value, payload })
    });
    rows.collect()
}

async fn write_batches(mut connection: SqliteConnection, seal: Seal, mut batches: mpsc::UnboundedReceiver<Batch>) {
    // What a failed commit left: memory has these changes, so they go first into the next one, in order.
    let mut changes = Vec::new();
    while let Some(first) = batches.recv().await {
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(batch) = next.take() {
            changes.extend(batch.changes);
            waiting.push(batch.done);
            if changes.len() < COMMIT_LIMIT {
                next = batches.try_recv().ok();
            }
        }
        let outcome = commit(&mut connection, &seal, &changes).await.map_err(|error| error.to_string());
        if outcome.is_ok() {
            changes.clear();
        }
        for done in waiting {
            // The waiter may be gone (its client hung up); the change is made all the same.
            let _ = done.send(outcome.clone().map_err(StoreError::Write));
        }
    }
    if !changes.is_empty()
        && let Err(error) = commit(&mut connection, &seal, &changes).await
    {
        tracing::error!(%error, lost = changes.len(), "the last changes could not be saved");
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the database did not close cleanly");
    }
}

async fn commit(connection: &mut SqliteConnection, seal: &Seal, changes: &[Change]) -> Result<(), StoreError> {
    // Only the last change of each record counts: many inputs come and go within one commit.
    let last: HashMap<_, _> = changes.iter().map(|change| (change.key(), change)).collect();
    if last.is_empty() {
        return Ok(());
    }
    let (mut puts, mut deletes) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
    for change in last.into_values() {
        match change {
            Change::Put { kind, id, value, payload } => puts.push((kind, id, seal.close(kind, id, value, payload)?)),
            Change::Delete { kind, id } => deletes.entry(kind).or_default().push(id),
        }
    }
    let failed = |error: sqlx::Error| StoreError::Write(error.to_string());
    let mut transaction = connection.begin().await.map_err(failed)?;
    for rows in puts.chunks(STATEMENT_ROWS) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT OR REPLACE INTO record (kind, id, sealed) ");
        insert.push_values(rows, |mut row, (kind, id, sealed)| {
            row.push_bind(**kind).push_bind(*id).push_bind(sealed.as_slice());
        });
        insert.build().execute(&mut *transaction).await.map_err(failed)?;
    }
    for (kind, ids) in &deletes {
        for ids in ids.chunks(STATEMENT_ROWS) {
            let mut delete = QueryBuilder::<Sqlite>::new("DELETE FROM record WHERE kind = ");
            delete.push_bind(**kind).push(" AND id IN (");
            let mut list = delete.separated(", ");
            for id in ids {
                list.push_bind(*id);
            }
            delete.push(")").build().execute(&mut *transaction).await.map_err(failed)?;
        }
    }
    transaction.commit().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use sqlx::{SqliteConnection, query};

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Thing {
        id: String,
    }

    impl Record for Thing {
        const KIND: &'static str = "thing";
        fn id(&self) -> &str {
            &self.id
        }
    }

    fn put(id: &str) -> Vec<Change> {
        vec![Change::put(&Thing { id: id.to_owned() })]
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Moment {
        id: String,
        seconds: f64,
    }

    impl Record for Moment {
        const KIND: &'static str = "moment";
        fn id(&self) -> &str {
            &self.id
        }
    }

    #[test]
    fn times_are_loaded_as_they_were_stored() {
        for step in 0..1000 {
            let seconds = 1_795_909_265.0 + f64::from(step) / 7919.0;
            let moment = Moment { id: step.to_string(), seconds };
            let row = StoredRow::after(Change::put(&moment)).unwrap();
            assert_eq!(row.decode::<Moment>().unwrap(), moment);
        }
    }

    #[tokio::test]
    async fn a_failed_commit_is_reported_and_made_good_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (store, rows) = Store::open(&path, CancellationToken::new()).await.unwrap();
        assert!(rows.is_empty());
        store.queue(put("a")).committed().await.unwrap();

        let mut other = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        let refused = store.queue(put("b")).committed().await;
        assert!(matches!(refused, Err(StoreError::Write(_))), "{refused:?}");
        query("ROLLBACK").execute(&mut other).await.unwrap();
        other.close().await.unwrap();

        let changes = vec![Change::delete::<Thing>("a"), Change::put(&Thing { id: "c".into() })];
        store.queue(changes).committed().await.unwrap();
        store.close().await;
        let (_, rows) = Store::open(&path, CancellationToken::new()).await.unwrap();
        let ids: Vec<String> = rows.into_iter().map(|row| row.decode::<Thing>().unwrap().id).collect();
        assert_eq!(ids, ["b", "c"]);
    }

    /// The first schema, as a server of that time left it.
    const FROZEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/local-modal-v1.db");

    /// Texts of the frozen database: of a Secret, and of a Dict's value.
    const IN_THE_CLEAR: [&str; 2] = [r#""FROZEN":"yes""#, "fc-04GDoovpQJIn7dm9E8ZalF"];

    /// The texts that are in a file of the folder.
    fn left_in(folder: &Path) -> Vec<&'static str> {
        let files = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
        let all: Vec<u8> = files.flatten().collect();
        let is_there = |text: &&str| all.windows(text.len()).any(|part| part == text.as_bytes());
        IN_THE_CLEAR.into_iter().filter(is_there).collect()
    }

    #[tokio::test]
    async fn a_database_in_the_clear_is_encrypted_and_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        fs::copy(FROZEN, &path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        // What was deleted is still on a free page.
        let mut old = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        query("DELETE FROM record WHERE kind = 'secret'").execute(&mut old).await.unwrap();
        old.close().await.unwrap();
        fs::copy(FROZEN, folder.path().join("state.db.v1-20260101T000000Z.backup")).unwrap();
        assert_eq!(left_in(folder.path()), IN_THE_CLEAR);

        let (store, rows) = Store::open(&path, CancellationToken::new()).await.unwrap();
        let kinds: Vec<&str> = rows.iter().map(|row| row.kind.as_str()).collect();
        assert_eq!(kinds, ["dict", "dict-item", "dict-item", "volume"]);
        assert_eq!(left_in(folder.path()), Vec::<&str>::new());
        store.close().await;
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
        let modes = names.map(|entry| (entry.file_name(), entry.metadata().unwrap().permissions().mode() & 0o777));
        assert_eq!(modes.filter(|(_, mode)| *mode != 0o600).collect::<Vec<_>>(), []);
        let (_, again) = Store::open(&path, CancellationToken::new()).await.unwrap();
        assert_eq!(again.len(), rows.len());
    }

    #[tokio::test]
    async fn a_database_without_its_key_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (store, _) = Store::open(&path, CancellationToken::new()).await.unwrap();
        store.queue(put("a")).committed().await.unwrap();
        store.close().await;
        let (key, kept) = (path.with_extension("key"), folder.path().join("kept"));
        fs::rename(&key, &kept).unwrap();
        let Err(StoreError::Seal(error)) = Store::open(&path, CancellationToken::new()).await else {
            panic!("it was not refused")
        };
        assert!(error.to_string().contains("state.key"), "{error}");
        assert!(!key.exists(), "another key would hide that the first is missing");
        fs::rename(&kept, &key).unwrap();
        let (_, rows) = Store::open(&path, CancellationToken::new()).await.unwrap();
        assert_eq!(rows.len(), 1);
    }
}
