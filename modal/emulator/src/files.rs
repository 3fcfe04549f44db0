//! The file store: contents by their SHA-256, for blobs, for mounts, and for uploads into Volumes.
//!
//! Small uploads are written without waiting for the disk. A caller that refers to some of them in a durable record
//! calls [`Files::sync`] first. After a crash of the machine, files that were not synced are removed (see `sweep`),
//! so a file here is always complete.

use std::{
    collections::HashSet,
    fs::{self, File, FileTimes},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::{
    error::Error,
    ids::{blob_hash, new_id},
};

/// Up to so many files are synced one by one; for more it is quicker to sync the whole file system.
pub const FEW: usize = 8;
/// The most unsynced files that are remembered; beyond that, all of them are synced.
const MAX_UNSYNCED: usize = 4_096;

/// A folder of immutable files that are named by their hash.
#[derive(Debug, Clone)]
pub struct Files {
    root: PathBuf,
    /// Where files are written before their hash is known.
    uploads: PathBuf,
    /// Hashes of files that may not be on the disk yet.
    unsynced: Arc<Mutex<HashSet<String>>>,
}

impl Files {
    pub fn new(data_dir: &Path) -> Self {
        Self { root: data_dir.join("files"), uploads: data_dir.join("uploads"), unsynced: Arc::default() }
    }

    /// The path of the contents with this hash, whether or not they exist.
    pub fn path(&self, sha256_hex: &str) -> Result<PathBuf, Error> {
        let valid = sha256_hex.len() == 64 && sha256_hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !valid {
            return Err(Error::invalid("sha256_hex", "it is not a SHA-256 in lower-case hex"));
        }
        Ok(self.root.join(&sha256_hex[..2]).join(sha256_hex))
    }

    /// Whether the contents with this hash exist. If so, they are kept for hours even if nothing refers to them, so
    /// that the caller can.
    pub fn claim(&self, sha256_hex: &str) -> Result<bool, Error> {
        let path = self.path(sha256_hex)?;
        let touched =
            File::open(path).and_then(|file| file.set_times(FileTimes::new().set_modified(SystemTime::now())));
        match touched {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("find", sha256_hex)(error)),
        }
    }

    /// The contents of a blob.
    pub async fn read_blob(&self, blob_id: &str) -> Result<Bytes, Error> {
        let missing = || Error::not_found("blob", blob_id);
        let path = self.path(blob_hash(blob_id).ok_or_else(missing)?)?;
        let read = blocking(move || fs::read(path).map_err(Error::io("read", "a blob")));
        Ok(read.await?.into())
    }

    /// Where the upload of an id is kept until it is complete.
    pub fn upload(&self, id: &str) -> PathBuf {
        self.uploads.join(id)
    }

    /// Stores contents, which must have the announced hash.
    pub async fn put(&self, sha256_hex: String, data: Bytes) -> Result<(), Error> {
        let (path, store) = (self.path(&sha256_hex)?, self.clone());
        blocking(move || {
            if hex::encode(Sha256::digest(&data)) != sha256_hex {
                return Err(Error::invalid("data", "it does not have the SHA-256 that was announced"));
            }
            if store.claim(&sha256_hex)? {
                return Ok(());
            }
            // In the folder of the final path: of many uploads at a time, only those to one folder wait for each other.
            let staged = path.with_file_name(new_id("up"));
            in_folder_of(&staged, || File::create_new(&staged))
                .and_then(|mut file| file.write_all(&data))
                .and_then(|()| fs::rename(&staged, &path))
                .map_err(Error::io("save", sha256_hex.as_str()))?;
            let crowded = {
                let mut unsynced = store.unsynced.lock();
                unsynced.insert(sha256_hex);
                unsynced.len() > MAX_UNSYNCED
            };
            if crowded { store.sync_all_files() } else { Ok(()) }
        })
        .await
    }

    /// Moves a complete upload into the store, which is on the disk and has the right hash; blocking.
    pub fn adopt(&self, staged: &Path, sha256_hex: &str) -> Result<(), Error> {
        let path = self.path(sha256_hex)?;
        move_into(staged, &path).and_then(|()| self.sync_names(&path)).map_err(Error::io("save", sha256_hex))
    }

    /// Makes contents durable; blocking.
    pub fn sync<'a>(&self, sha256_hex: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
        let wanted: Vec<&str> = {
            let unsynced = self.unsynced.lock();
            sha256_hex.into_iter().filter(|hash| unsynced.contains(*hash)).collect()
        };
        if wanted.len() > FEW {
            return self.sync_all_files();
        }
        for hash in wanted {
            let path = self.path(hash)?;
            let synced = File::open(&path).and_then(|file| file.sync_all()).and_then(|()| self.sync_names(&path));
            synced.map_err(Error::io("save", hash))?;
            self.unsynced.lock().remove(hash);
        }
        Ok(())
    }

    fn sync_all_files(&self) -> Result<(), Error> {
        let synced = self.unsynced.lock().clone();
        sync_file_system(&self.root).map_err(Error::io("save", "the uploaded files"))?;
        // Those that were added meanwhile stay.
        self.unsynced.lock().retain(|hash| !synced.contains(hash));
        Ok(())
    }

    /// Makes the name of a file durable.
    fn sync_names(&self, path: &Path) -> io::Result<()> {
        sync_folder(path)?;
        File::open(&self.root)?.sync_all()
    }
}

fn move_into(staged: &Path, path: &Path) -> io::Result<()> {
    in_folder_of(path, || fs::rename(staged, path))
}

/// Runs `work`, and if the folder of a file does not exist, creates it and runs `work` again.
fn in_folder_of<T>(path: &Path, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match work() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            work()
        }
        done => done,
    }
}

/// Makes the names in the folder of `path` durable.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Writes a file atomically: it has all contents or does not exist.
pub fn write_whole(path: &Path, data: &[u8]) -> io::Result<()> {
    let staged = path.with_file_name(format!(".{}.partial", new_id("put")));
    let mut file = File::create_new(&staged)?;
    file.write_all(data)?;
    file.sync_all()?;
    fs::rename(&staged, path)?;
    sync_folder(path)
}

/// Makes everything in the file system of `folder` durable: quicker than one file at a time if there are many.
pub fn sync_file_system(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

/// Runs blocking file work off the event loop.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::ShuttingDown),
        },
    }
}
