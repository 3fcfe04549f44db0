//! Reads files that the user names, if they are regular files of bounded size.

use std::{
    fs::{self, File, FileType},
    io::Read,
    os::unix::fs::FileTypeExt,
    path::Path,
};

/// Reads a file of at most `limit` bytes; the error is a clause about the file.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if let Some(objection) = objection(metadata.file_type()) {
        return Err(objection.to_owned());
    }
    read_any(path, limit)
}

/// Like [`read`], but also accepts pipes, such as a process substitution. Waits for the writer.
pub fn read_any(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limit { Err(format!("it is larger than {} MiB", limit >> 20)) } else { Ok(bytes) }
}

fn objection(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("it is a folder, not a file")
    } else if kind.is_fifo() {
        Some("it is a pipe, not a file")
    } else if kind.is_socket() {
        Some("it is a socket, not a file")
    } else {
        Some("it is a device, not a file")
    }
}
