//! The file store: contents by their SHA-256, for mounts and for files on their way into a Volume.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{error::Error, ids::new_id};

/// A folder of immutable files that are named by their hash.
#[derive(Debug, Clone)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where the contents with this hash are, or would be.
    pub fn path(&self, sha256_hex: &str) -> Result<PathBuf, Error> {
        let valid = sha256_hex.len() == 64 && sha256_hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !valid {
            return Err(Error::invalid("sha256_hex", "it is not a SHA-256 in lower-case hex"));
        }
        Ok(self.root.join(&sha256_hex[..2]).join(sha256_hex))
    }

    /// Whether the contents with this hash are here.
    pub fn contains(&self, sha256_hex: &str) -> Result<bool, Error> {
        Ok(self.path(sha256_hex)?.is_file())
    }

    /// Keeps contents; they have to have the hash they are said to have.
    pub async fn put(&self, sha256_hex: String, data: Bytes) -> Result<(), Error> {
        let path = self.path(&sha256_hex)?;
        blocking(move || {
            if hex::encode(Sha256::digest(&data)) != sha256_hex {
                return Err(Error::invalid("data", "it does not have the SHA-256 that was announced"));
            }
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder)
                .and_then(|()| write_whole(&path, |file| file.write_all(&data)))
                .map_err(Error::io("save", sha256_hex))
        })
        .await
    }
}

/// Writes a file so that it is there as a whole or not at all: temporary file, fsync, rename, fsync of the folder.
pub fn write_whole(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let staged = stage(path, fill)?;
    fs::rename(&staged, path)?;
    sync_folder(path)
}

/// Writes the temporary file of [`write_whole`] next to `path` and returns where it is.
pub fn stage(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<PathBuf> {
    let staged = path.with_file_name(format!(".{}.partial", new_id("put")));
    let written = File::create_new(&staged).and_then(|mut file| {
        fill(&mut file)?;
        file.sync_all()
    });
    match written {
        Ok(()) => Ok(staged),
        Err(error) => {
            // The first error is the one to report; a left-over temporary file is harmless.
            let _ = fs::remove_file(&staged);
            Err(error)
        }
    }
}

/// Makes the names in the folder of `path` durable.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
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
