//! Durable records: one SQLite table, one writer task, many changes per commit.
//!
//! The authoritative state is in memory; the store only restores it after a restart. Changes are queued in the order in
//! which they were made (under the state's lock), and a caller that promises durability waits for the commit of its
//! change.

mod error;
mod plain;
mod record;
mod seal;
mod writer;

use std::{
    fs::{self, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use include_dir::{Dir, include_dir};
use sqlite_schema::upgrade;
use sqlx::{
    ConnectOptions, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub use self::{
    error::StoreError,
    record::{Change, Record, StoredRow},
};
use self::{
    seal::Seal,
    writer::{Batch, write_batches},
};

static MIGRATIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/migrations");

/// The queue to the writer task.
pub struct Store {
    // Not bounded: each request in flight waits for its commit, which bounds the queue.
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
    /// Opens (or creates) the database, brings its schema up to date and reads every record. If the writer fails,
    /// `failed` is canceled.
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
            // No other process writes to it, and readers are quick.
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

    /// Queues changes after all earlier ones. Call it under the lock under which they were made.
    pub fn queue(&self, changes: Vec<Change>) -> Pending {
        if changes.is_empty() {
            return Pending(None);
        }
        let (done, receiver) = oneshot::channel();
        // A closed queue drops `done`, which the waiter sees as `StoreError::Closed`.
        drop(self.queue.send(Batch { changes, done }));
        Pending(Some(receiver))
    }

    /// An empty batch, which is committed after all earlier ones.
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

/// Creates the file, and makes it private to this user. SQLite's other files get the same mode.
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

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use sqlx::{Connection, query};

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
    fn times_round_trip_through_the_store() {
        for step in 0..1000 {
            let seconds = 1_795_909_265.0 + f64::from(step) / 7919.0;
            let moment = Moment { id: step.to_string(), seconds };
            let row = StoredRow::after(Change::put(&moment)).unwrap();
            assert_eq!(row.decode::<Moment>().unwrap(), moment);
        }
    }

    #[tokio::test]
    async fn failed_commit_is_reported_and_repeated_with_the_next() {
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
    async fn plaintext_database_is_encrypted_without_remains() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        fs::copy(FROZEN, &path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        // The deleted row is still on a free page.
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
    async fn database_without_its_key_is_refused_unchanged() {
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
