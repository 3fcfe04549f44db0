//! The files of Volumes: one folder each, whose path only this module knows.

mod copy;
mod list;
mod path;
mod place;

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::PathBuf,
    sync::Arc,
};

use modal_proto::{FileEntry, MountFile, volume_put_files2_request as put2};
use parking_lot::Mutex;

pub use self::{list::is_partial, path::normal, place::BLOCK_BYTES};
use self::{
    path::{locate, missing},
    place::{Contents, Placement, place},
};
use crate::{
    error::Error,
    files::{self, Files, blocking},
};

/// The folder with the folders of all Volumes.
#[derive(Debug, Clone)]
pub struct Volumes {
    root: PathBuf,
    /// Locks, so that uploads and removals of one Volume run one after the other.
    locks: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

/// A block that has to be uploaded before its file can be put.
#[derive(Debug)]
pub struct MissingBlock {
    pub file_index: usize,
    pub block_index: usize,
    pub sha256_hex: String,
}

impl Volumes {
    pub fn new(root: PathBuf) -> Self {
        Self { root, locks: Arc::default() }
    }

    /// The folder of a Volume.
    pub fn folder(&self, volume_id: &str) -> PathBuf {
        self.root.join(volume_id)
    }

    /// Creates the folder of a Volume, if it does not exist.
    pub async fn create(&self, volume_id: &str) -> Result<(), Error> {
        let folder = self.folder(volume_id);
        blocking(move || fs::create_dir_all(&folder).map_err(Error::io("create", "the Volume's folder"))).await
    }

    /// Removes a Volume's files.
    pub async fn delete(&self, volume_id: &str) -> Result<(), Error> {
        self.change(volume_id, |folder| match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", "the Volume's folder")(error))
            }
            _ => Ok(()),
        })
        .await?;
        // The Volume cannot be found any more, so nobody changes it.
        self.locks.lock().remove(volume_id);
        Ok(())
    }

    /// Waits for exclusive access to the files of a Volume.
    pub async fn lock(&self, volume_id: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            locks.entry(volume_id.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// Puts uploaded files at their paths: all of them, or none if one fails.
    pub async fn put(
        &self,
        volume_id: &str,
        files: Vec<MountFile>,
        store: Files,
        keep_existing: bool,
    ) -> Result<(), Error> {
        self.change(volume_id, move |root| {
            let mut wanted = Vec::with_capacity(files.len());
            for file in files {
                let target = target(&root, &file.filename, keep_existing)?;
                if !store.claim(&file.sha256_hex)? {
                    return Err(Error::not_found("uploaded data", file.sha256_hex));
                }
                let contents = Contents::Whole(store.path(&file.sha256_hex)?);
                wanted.push(Placement { target, contents, mode: file.mode.unwrap_or(0o644) });
            }
            place(&root, wanted)
        })
        .await
    }

    /// Puts files that consist of uploaded blocks at their paths: all of them, or none if one fails. Returns the blocks
    /// that are missing; if there are any, no file is put.
    pub async fn put_blocks(
        &self,
        volume_id: &str,
        files: Vec<put2::File>,
        store: Files,
        keep_existing: bool,
    ) -> Result<Vec<MissingBlock>, Error> {
        self.change(volume_id, move |root| {
            let mut wanted = Vec::with_capacity(files.len());
            let mut missing = HashMap::new();
            for (file_index, file) in files.into_iter().enumerate() {
                let target = target(&root, &file.path, keep_existing)?;
                if file.blocks.len() as u64 != file.size.div_ceil(BLOCK_BYTES) {
                    return Err(Error::invalid("blocks", format!("{:?} has not as many as its size takes", file.path)));
                }
                let mut blocks = Vec::with_capacity(file.blocks.len());
                for (block_index, block) in file.blocks.iter().enumerate() {
                    let sha256_hex = hex::encode(&block.contents_sha256);
                    blocks.push(store.path(&sha256_hex)?);
                    if !store.claim(&sha256_hex)? {
                        missing.entry(sha256_hex.clone()).or_insert(MissingBlock {
                            file_index,
                            block_index,
                            sha256_hex,
                        });
                    }
                }
                let contents = Contents::Blocks(blocks, file.size);
                wanted.push(Placement { target, contents, mode: file.mode.unwrap_or(0o644) });
            }
            if missing.is_empty() {
                place(&root, wanted)?;
            }
            Ok(missing.into_values().collect())
        })
        .await
    }

    /// Lists a file, or the files of a folder, in the order of their paths.
    pub async fn list(
        &self,
        volume_id: &str,
        path: String,
        recursive: bool,
        limit: Option<u32>,
    ) -> Result<Vec<FileEntry>, Error> {
        let folder = self.folder(volume_id);
        blocking(move || {
            let target = locate(&folder, &path)?;
            let meta = target.symlink_metadata().map_err(missing("list", &path))?;
            let mut entries = Vec::new();
            if meta.is_dir() {
                list::walk(&folder, &target, recursive, &mut entries).map_err(Error::io("list", path))?;
            } else {
                entries.push(list::entry(&folder, &target, &meta));
            }
            entries.sort_by(|a, b| a.path.cmp(&b.path));
            entries.truncate(limit.map_or(usize::MAX, |limit| limit as usize));
            Ok(entries)
        })
        .await
    }

    /// Opens a file; returns it with its size in bytes.
    pub async fn open(&self, volume_id: &str, path: String) -> Result<(File, u64), Error> {
        let folder = self.folder(volume_id);
        blocking(move || {
            let target = locate(&folder, &path)?;
            let meta = target.metadata().map_err(missing("open", &path))?;
            if !meta.is_file() {
                // To open a pipe would wait for its other end.
                return Err(Error::invalid("path", format!("{path:?} is not a file")));
            }
            let file = File::open(&target).map_err(missing("open", &path))?;
            let size = file.metadata().map_err(Error::io("open", path.as_str()))?.len();
            Ok((file, size))
        })
        .await
    }

    /// Copies files by the rules of `cp`.
    pub async fn copy(
        &self,
        volume_id: &str,
        sources: Vec<String>,
        destination: String,
        recursive: bool,
    ) -> Result<(), Error> {
        self.change(volume_id, move |root| copy::copy(&root, &sources, &destination, recursive)).await
    }

    /// Removes a file, or a folder with its contents if `recursive`.
    pub async fn remove(&self, volume_id: &str, path: String, recursive: bool) -> Result<(), Error> {
        self.change(volume_id, move |root| {
            let target = locate(&root, &path)?;
            if target == root {
                return Err(Error::invalid("path", "the root of a Volume cannot be removed"));
            }
            let meta = target.symlink_metadata().map_err(missing("remove", &path))?;
            if !meta.is_dir() {
                fs::remove_file(&target)
            } else if recursive {
                fs::remove_dir_all(&target)
            } else {
                return Err(Error::invalid("path", format!("{path:?} is a folder; removing it takes `recursive`")));
            }
            .and_then(|()| files::sync_folder(&target))
            .map_err(Error::io("remove", path))
        })
        .await
    }

    /// Changes a Volume's folder with exclusive access.
    async fn change<T: Send + 'static>(
        &self,
        volume_id: &str,
        work: impl FnOnce(PathBuf) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let alone = self.lock(volume_id).await;
        let root = self.folder(volume_id);
        blocking(move || {
            // Held to the end of the work, even if nobody waits for it any more.
            let _alone = alone;
            work(root)
        })
        .await
    }
}

/// The destination of an uploaded file.
fn target(root: &std::path::Path, path: &str, keep_existing: bool) -> Result<PathBuf, Error> {
    let target = locate(root, path)?;
    if target == *root || target.is_dir() {
        return Err(Error::invalid("path", format!("{path:?} is a folder")));
    }
    if keep_existing && target.symlink_metadata().is_ok() {
        return Err(Error::AlreadyExists { kind: "file", id: path.to_owned() });
    }
    Ok(target)
}
