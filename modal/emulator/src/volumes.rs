//! The files of Volumes: one folder each, which containers use directly.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::UNIX_EPOCH,
};

use modal_proto::{FileEntry, MountFile, file_entry::FileType};

use crate::{
    error::Error,
    files::{self, Files, blocking},
};

/// The folder with the folders of all Volumes.
#[derive(Debug, Clone)]
pub struct Volumes {
    root: PathBuf,
    /// Uploads and removals of one Volume come one after the other.
    locks: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Volumes {
    pub fn new(root: PathBuf) -> Self {
        Self { root, locks: Arc::default() }
    }

    /// The folder of a Volume.
    pub fn folder(&self, volume_id: &str) -> PathBuf {
        self.root.join(volume_id)
    }

    /// Makes the folder of a Volume, if it is not there.
    pub async fn create(&self, volume_id: &str) -> Result<(), Error> {
        let folder = self.folder(volume_id);
        blocking(move || fs::create_dir_all(&folder).map_err(Error::io("create", "the Volume's folder"))).await
    }

    /// Removes a Volume's files.
    pub async fn delete(&self, volume_id: &str) -> Result<(), Error> {
        let _alone = self.lock(volume_id).await;
        let folder = self.folder(volume_id);
        blocking(move || match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", "the Volume's folder")(error))
            }
            _ => Ok(()),
        })
        .await
    }

    /// Waits until nobody else changes the files of a Volume.
    pub async fn lock(&self, volume_id: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.entry(volume_id.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// Puts uploaded files in their places, all of them or, if one cannot be, none.
    pub async fn put(
        &self,
        volume_id: &str,
        files: Vec<MountFile>,
        store: Files,
        keep_existing: bool,
    ) -> Result<(), Error> {
        let _alone = self.lock(volume_id).await;
        let folder = self.folder(volume_id);
        blocking(move || {
            let mut wanted = Vec::with_capacity(files.len());
            for file in files {
                let relative = normal(&file.filename)?;
                let target = folder.join(&relative);
                if relative.as_os_str().is_empty() || target.is_dir() {
                    return Err(Error::invalid("path", format!("{:?} is a folder", file.filename)));
                }
                if keep_existing && target.exists() {
                    return Err(Error::AlreadyExists { kind: "file", id: file.filename });
                }
                let source = store.path(&file.sha256_hex)?;
                if !source.is_file() {
                    return Err(Error::not_found("uploaded data", file.sha256_hex));
                }
                wanted.push((source, target, file));
            }
            place(wanted)
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
            let relative = normal(&path)?;
            let target = folder.join(&relative);
            let meta = target.symlink_metadata().map_err(missing("list", &path))?;
            let mut entries = Vec::new();
            if meta.is_dir() {
                walk(&folder, &target, recursive, &mut entries).map_err(Error::io("list", path))?;
            } else {
                entries.push(entry(&folder, &target, &meta));
            }
            entries.sort_by(|a, b| a.path.cmp(&b.path));
            entries.truncate(limit.map_or(usize::MAX, |limit| limit as usize));
            Ok(entries)
        })
        .await
    }

    /// Opens a file and tells its size.
    pub async fn open(&self, volume_id: &str, path: String) -> Result<(File, u64), Error> {
        let folder = self.folder(volume_id);
        blocking(move || {
            let target = folder.join(normal(&path)?);
            let file = File::open(&target).map_err(missing("open", &path))?;
            let meta = file.metadata().map_err(Error::io("open", path.as_str()))?;
            if meta.is_dir() {
                return Err(Error::invalid("path", format!("{path:?} is a folder")));
            }
            Ok((file, meta.len()))
        })
        .await
    }

    /// Removes a file, or a folder with all in it if `recursive`.
    pub async fn remove(&self, volume_id: &str, path: String, recursive: bool) -> Result<(), Error> {
        let _alone = self.lock(volume_id).await;
        let folder = self.folder(volume_id);
        blocking(move || {
            let relative = normal(&path)?;
            if relative.as_os_str().is_empty() {
                return Err(Error::invalid("path", "the root of a Volume cannot be removed"));
            }
            let target = folder.join(relative);
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
}

fn place(wanted: Vec<(PathBuf, PathBuf, MountFile)>) -> Result<(), Error> {
    let mut staged = Vec::with_capacity(wanted.len());
    for (source, target, file) in &wanted {
        let copy = || {
            fs::create_dir_all(target.parent().unwrap_or(target))?;
            files::stage(target, |to| {
                io::copy(&mut File::open(source)?, to)?;
                to.set_permissions(fs::Permissions::from_mode(file.mode.unwrap_or(0o644) & 0o777))
            })
        };
        match copy() {
            Ok(partial) => staged.push(partial),
            Err(error) => {
                for partial in staged {
                    // The first error is the one to report; a left-over temporary file is harmless.
                    let _ = fs::remove_file(partial);
                }
                return Err(Error::io("save", &file.filename)(error));
            }
        }
    }
    for (partial, (_, target, file)) in staged.iter().zip(&wanted) {
        fs::rename(partial, target)
            .and_then(|()| files::sync_folder(target))
            .map_err(Error::io("save", &file.filename))?;
    }
    Ok(())
}

/// A path as the SDK gives it, relative to the Volume's root; it cannot lead out of it.
pub fn normal(path: &str) -> Result<PathBuf, Error> {
    let mut normal = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::invalid("path", format!("{path:?} leads out of the Volume")));
            }
        }
    }
    if path.contains('\0') {
        return Err(Error::invalid("path", "it contains a NUL"));
    }
    Ok(normal)
}

fn missing(action: &'static str, path: &str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NotFound { kind: "file", id: path },
        _ => Error::io(action, path)(error),
    }
}

fn walk(root: &Path, folder: &Path, recursive: bool, entries: &mut Vec<FileEntry>) -> io::Result<()> {
    for item in fs::read_dir(folder)? {
        let path = item?.path();
        // A file that a container removes meanwhile is not there any more, and that is all.
        let Ok(meta) = path.symlink_metadata() else { continue };
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_partial) {
            continue;
        }
        entries.push(entry(root, &path, &meta));
        if recursive && meta.is_dir() {
            walk(root, &path, recursive, entries)?;
        }
    }
    Ok(())
}

pub fn is_partial(name: &str) -> bool {
    name.starts_with(".put-") && name.ends_with(".partial")
}

fn entry(root: &Path, path: &Path, meta: &Metadata) -> FileEntry {
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_dir() => FileType::Directory,
        () if kind.is_symlink() => FileType::Symlink,
        () if kind.is_fifo() => FileType::Fifo,
        () if kind.is_socket() => FileType::Socket,
        () => FileType::File,
    };
    let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    FileEntry {
        path: path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned(),
        r#type: kind.into(),
        mtime: modified.map(|age| age.as_secs()).unwrap_or_default(),
        size: meta.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(normal("/dags//a/./b.py").unwrap(), Path::new("dags/a/b.py"));
        assert_eq!(normal("/").unwrap(), Path::new(""));
        assert!(normal("dags/../../etc/passwd").is_err());
        assert!(normal("a\0b").is_err());
    }
}
