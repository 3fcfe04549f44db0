//! Files with secrets: only their owner can read them, and they are replaced as a whole.

use std::{
    fs::{DirBuilder, File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

use crate::regular_file;

/// Why a file's content cannot be had, or be trusted.
#[derive(Debug)]
pub enum Unreadable {
    Io(io::Error),
    /// It belongs to another user.
    Foreign,
    /// Others can read it: its mode.
    Exposed(u32),
}

/// The first bytes of a file, at most `limit`, if it is private; and what the system says of it.
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

/// Puts a content in the place of whatever is there, down to the disk.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, |file| file.persist(path))
}

/// Writes a file where none is; `AlreadyExists` if there is one.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, |file| file.persist_noclobber(path))
}

/// Writes the content beside its place, and has it put there.
fn write(
    path: &Path,
    content: &[u8],
    put: impl FnOnce(tempfile::NamedTempFile) -> Result<File, tempfile::PersistError>,
) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Temporary files are made for their owner alone.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    put(file)?;
    File::open(folder)?.sync_all()
}
