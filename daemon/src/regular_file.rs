//! Opens user-named files safely: only regular files, as a pipe blocks its reader and a device has no end.

use std::{
    fs::{File, FileType, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

/// Opens a file for reading. Never blocks, even if the path is replaced concurrently.
///
/// # Errors
/// Those of the system, and `InvalidInput` with [`objection`] as its message.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    // Without this flag, opening a pipe waits for a writer; it has no effect on a regular file.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(|error| {
        // A socket cannot be opened at all.
        let kind = path.metadata().ok().and_then(|metadata| objection(metadata.file_type()));
        kind.map_or(error, refused)
    })?;
    let metadata = file.metadata()?;
    match objection(metadata.file_type()) {
        None => Ok((file, metadata)),
        Some(objection) => Err(refused(objection)),
    }
}

/// Reads a text file of at most `limit` bytes.
///
/// # Errors
/// Those of [`open`], `InvalidData` for what is not UTF-8, `FileTooLarge`.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let (file, _) = open(path)?;
    let mut text = Vec::new();
    file.take(limit + 1).read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")));
    }
    String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

/// Returns why something that is not a folder is not read; `None` for a regular file.
pub fn objection(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("it is a folder, not a regular file")
    } else if kind.is_fifo() {
        Some("it is a named pipe, not a regular file")
    } else if kind.is_socket() {
        Some("it is a socket, not a regular file")
    } else {
        Some("it is a device, not a regular file")
    }
}

fn refused(objection: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, objection)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, path::PathBuf};

    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let (pipe, socket) = (folder.path().join("pipe"), folder.path().join("socket"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).expect("a pipe");
        let _listener = UnixListener::bind(&socket).expect("a socket");
        let cases = [
            (pipe, "it is a named pipe, not a regular file"),
            (socket, "it is a socket, not a regular file"),
            (PathBuf::from("/dev/zero"), "it is a device, not a regular file"),
            (folder.path().to_owned(), "it is a folder, not a regular file"),
        ];
        for (path, message) in cases {
            assert_eq!(open(&path).map(drop).map_err(|error| error.to_string()), Err(message.to_owned()));
        }
        let file = folder.path().join("file");
        std::fs::write(&file, "text").expect("a file");
        assert_eq!(read_text(&file, 4).expect("the text"), "text");
        assert_eq!(read_text(&file, 3).expect_err("too large").kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(open(&folder.path().join("none")).map(drop).expect_err("absent").kind(), io::ErrorKind::NotFound);
    }
}
