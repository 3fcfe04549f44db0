//! Listing the files of a Volume; blocking.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::FileTypeExt,
    path::Path,
    time::UNIX_EPOCH,
};

use modal_proto::{FileEntry, file_entry::FileType};

/// Lists the contents of a folder.
pub fn walk(root: &Path, folder: &Path, recursive: bool, entries: &mut Vec<FileEntry>) -> io::Result<()> {
    for item in fs::read_dir(folder)? {
        let path = item?.path();
        // A file that a container removes meanwhile is left out.
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

/// Whether a file of this name is still being written.
pub fn is_partial(name: &str) -> bool {
    name.starts_with(".put-") && name.ends_with(".partial")
}

/// A file as clients see it.
pub fn entry(root: &Path, path: &Path, meta: &Metadata) -> FileEntry {
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
