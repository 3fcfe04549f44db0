//! Lines for the journal of systemd: on stderr, each with its level in front.

use std::{
    io::{self, Write},
    os::fd::AsFd,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Whether stderr leads to the journal. (A shell that was started from a service inherits the variable, but not stderr.)
pub fn is_stderr() -> bool {
    let Ok(expected) = std::env::var("JOURNAL_STREAM") else { return false };
    let found = rustix::fs::fstat(io::stderr().as_fd());
    found.is_ok_and(|stat| expected == format!("{}:{}", stat.st_dev, stat.st_ino))
}

pub struct Journal;

/// One event.
pub struct Entry(u8);

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Entry;

    fn make_writer(&'a self) -> Entry {
        Entry(level(&Level::INFO))
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Entry {
        Entry(level(event.level()))
    }
}

/// The number that syslog has for it. Traces are as little worth keeping as what helps to debug.
fn level(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

impl Entry {
    /// An entry of several lines would be several entries: each has the level.
    fn lines(&self, text: &[u8]) -> Vec<u8> {
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.flat_map(|line| [format!("<{}>", self.0).as_bytes(), line, b"\n"].concat()).collect()
    }
}

impl Write for Entry {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&self.lines(text))?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_journal_line_has_a_priority_prefix() {
        assert_eq!(Entry(level(&Level::ERROR)).lines(b"one\ntwo\n"), b"<3>one\n<3>two\n");
        assert_eq!(Entry(level(&Level::DEBUG)).lines(b"three\n"), b"<7>three\n");
    }
}
