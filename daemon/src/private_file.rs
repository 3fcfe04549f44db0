//! Files with secrets: readable only by their owner, and replaced atomically.

use std::{
    fs::{DirBuilder, File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

use crate::regular_file;

/// Why a file cannot be read or trusted.
#[derive(Debug)]
pub enum Unreadable {
    Io(io::Error),
    /// It belongs to another user.
    Foreign,
    /// Others can read it: its mode.
    Exposed(u32),
}

/// Reads at most `limit` bytes of a private file; also returns its metadata.
pub fn read(path: &Path, limit: u64) -> Result<(Metadata, Vec<u8>), Unreadable> {
    let (file, metadata) = regular_file::open(path).map_err(Unreadable::Io)?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(Unreadable::Foreign);
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(Unreadable::Exposed(metadata.mode() & 0o777));
    }
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content).map_err(Unreadable::Io)?;
    Ok((metadata, content))
}

/// Replaces the content of a file and syncs it to disk.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, |file| file.persist(path))
}

/// Creates a file; fails with `AlreadyExists` if there is one.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, |file| file.persist_noclobber(path))
}

/// Writes the content to a temporary file next to the path, then moves it with `put`.
fn write(
    path: &Path,
    content: &[u8],
    put: impl FnOnce(tempfile::NamedTempFile) -> Result<File, tempfile::PersistError>,
) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Temporary files are created private.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    put(file)?;
    File::open(folder)?.sync_all()
}
