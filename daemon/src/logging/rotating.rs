//! A log file of bounded size: `airflowd.log`, and older lines in `airflowd.log.1` to `.4`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use parking_lot::{Mutex, MutexGuard};

/// Size of one file, and how many there are.
const FILE_BYTES: u64 = 10 << 20;
const FILES: usize = 5;

pub struct RotatingFile {
    path: PathBuf,
    limit: u64,
    current: Mutex<Current>,
}

struct Current {
    file: File,
    size: u64,
}

impl RotatingFile {
    /// Opens the file for appending; creates it readable for this user only.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, FILE_BYTES)
    }

    fn with_limit(path: &Path, limit: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        Ok(Self { path: path.to_owned(), limit, current: Mutex::new(Current::open(path)?) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reopens the path.
    pub fn reopen(&self) -> io::Result<()> {
        *self.lock() = Current::open(&self.path)?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // A line that could not be written leaves nothing behind that the next one could not follow.
        self.current.lock()
    }

    fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut current = self.lock();
        if current.size > 0 && current.size + line.len() as u64 > self.limit {
            match self.rotate() {
                Ok(fresh) => *current = fresh,
                // Stay within the limit: losing old lines is better than filling the disk.
                Err(_) => current.clear()?,
            }
        }
        current.file.write_all(line)?;
        current.size += line.len() as u64;
        Ok(())
    }

    fn rotate(&self) -> io::Result<Current> {
        for number in (1..FILES).rev() {
            let from = if number == 1 { self.path.clone() } else { self.numbered(number - 1) };
            match fs::rename(from, self.numbered(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Current::open(&self.path)
    }

    fn numbered(&self, number: usize) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

impl Current {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self { size: file.metadata()?.len(), file })
    }

    fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.size = 0;
        Ok(())
    }
}

impl Write for &RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.append(line).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).expect("a file")
    }

    #[test]
    fn full_log_is_rotated_and_the_oldest_file_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state/it.log");
        let log = RotatingFile::with_limit(&path, 10).expect("a log");
        for number in 0..20 {
            (&log).write_all(format!("line {number:02}\n").as_bytes()).expect("written");
        }
        // A file holds only one of these lines.
        assert_eq!((read(&path), read(&log.numbered(1))), ("line 19\n".into(), "line 18\n".into()));
        assert_eq!(read(&log.numbered(4)), "line 15\n");
        assert!(!log.numbered(5).exists());
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn existing_log_counts_and_moved_log_is_reopened() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("it.log");
        fs::write(&path, "before\n").expect("written");
        let log = RotatingFile::with_limit(&path, 10).expect("a log");
        (&log).write_all(b"after\n").expect("written");
        assert_eq!((read(&path), read(&log.numbered(1))), ("after\n".into(), "before\n".into()));

        fs::rename(&path, folder.path().join("elsewhere")).expect("moved");
        log.reopen().expect("opened");
        (&log).write_all(b"anew\n").expect("written");
        assert_eq!(read(&path), "anew\n");
    }

    #[test]
    fn log_is_truncated_if_rotation_fails() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("it.log");
        let log = RotatingFile::with_limit(&path, 10).expect("a log");
        fs::create_dir_all(log.numbered(1).join("in the way")).expect("a folder");
        for _ in 0..5 {
            (&log).write_all(b"a line\n").expect("written");
        }
        assert_eq!(read(&path), "a line\n");
    }
}
