//! Shows and follows the daemon's log file.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use serde::Serialize;

use crate::{
    cli::Logs,
    error::{CliError, ExitStatus},
    printer::Printer,
};

const POLL: Duration = Duration::from_millis(200);

#[derive(Serialize)]
struct Lines {
    lines: Vec<String>,
}

#[derive(Serialize)]
struct Line {
    line: String,
}

/// Prints the end of the file, and optionally follows it.
pub async fn show(path: &Path, arguments: &Logs, printer: &Printer) -> Result<ExitStatus, CliError> {
    let failed = |error| CliError::unexpected(&format!("reading {}", path.display()), error);
    let mut tail = match Tail::open(path) {
        Ok(tail) => tail,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let hint = "a daemon started by `airflow-serverless daemon start` or any other command writes it";
            return Err(CliError::input(format!("there is no log at {}", path.display()), Vec::new(), Some(hint)));
        }
        Err(error) => return Err(failed(error)),
    };
    let last = tail.last(arguments.lines).map_err(failed)?;
    if !arguments.follow {
        printer.result(&Lines { lines: last }, |lines| lines.lines.join("\n"));
        return Ok(ExitStatus::Success);
    }
    let mut lines = last;
    loop {
        for line in lines {
            if !printer.data_line(&Line { line }, |line| line.line.clone()) {
                // The reader of stdout is gone.
                return Ok(ExitStatus::Success);
            }
        }
        tokio::time::sleep(POLL).await;
        lines = tail.more(path).map_err(failed)?;
    }
}

/// A growing file that is sometimes rotated.
struct Tail {
    reader: BufReader<File>,
    inode: u64,
    /// An incomplete last line.
    partial: Vec<u8>,
}

impl Tail {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { inode: file.metadata()?.ino(), reader: BufReader::new(file), partial: Vec::new() })
    }

    /// Reads the last lines of the current content.
    fn last(&mut self, count: usize) -> io::Result<Vec<String>> {
        let mut last = VecDeque::new();
        while let Some(line) = self.next()? {
            if last.len() == count {
                last.pop_front();
            }
            if count > 0 {
                last.push_back(line);
            }
        }
        Ok(last.into())
    }

    /// Reads the lines added since the last call.
    fn more(&mut self, path: &Path) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        self.collect(&mut lines)?;
        match std::fs::metadata(path) {
            Ok(now) if now.ino() != self.inode => {
                *self = Self::open(path)?;
                self.collect(&mut lines)?;
            }
            // It was truncated.
            Ok(now) if now.len() < self.reader.stream_position()? => {
                self.reader.seek(SeekFrom::Start(0))?;
                self.collect(&mut lines)?;
            }
            // In the middle of a rotation.
            _ => {}
        }
        Ok(lines)
    }

    fn collect(&mut self, lines: &mut Vec<String>) -> io::Result<()> {
        while let Some(line) = self.next()? {
            lines.push(line);
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<String>> {
        self.reader.by_ref().read_until(b'\n', &mut self.partial)?;
        if self.partial.last() != Some(&b'\n') {
            return Ok(None);
        }
        self.partial.pop();
        let line = String::from_utf8_lossy(&self.partial).into_owned();
        self.partial.clear();
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_follows_rotated_and_truncated_files() {
        let path = std::env::temp_dir().join(format!("airflowd-{}.log", uuid::Uuid::new_v4()));
        std::fs::write(&path, "one\ntwo\nthr").expect("written");
        let mut tail = Tail::open(&path).expect("a file");
        assert_eq!(tail.last(1).expect("lines"), ["two"]);
        assert_eq!(tail.more(&path).expect("lines"), Vec::<String>::new());
        std::fs::write(&path, "one\ntwo\nthree\nfour\n").expect("written");
        assert_eq!(tail.more(&path).expect("lines"), ["three", "four"]);
        // Rotated: renamed and recreated.
        let old = path.with_extension("1");
        std::fs::rename(&path, &old).expect("renamed");
        assert_eq!(tail.more(&path).expect("lines"), Vec::<String>::new());
        std::fs::write(&path, "five\n").expect("written");
        assert_eq!(tail.more(&path).expect("lines"), ["five"]);
        // Truncated.
        std::fs::write(&path, "6\n").expect("written");
        assert_eq!(tail.more(&path).expect("lines"), ["6"]);
        for path in [path, old] {
            std::fs::remove_file(path).expect("removed");
        }
    }
}
