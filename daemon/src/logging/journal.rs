//! Log lines for systemd's journal: on stderr, each with a level prefix.

use std::{
    io::{self, Write},
    os::fd::AsFd,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Whether stderr is connected to the journal. (A shell started from a service inherits the variable, but not stderr.)
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

/// Returns the syslog number of a level. Traces have the same level as debug messages.
fn level(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

impl Entry {
    /// Prefixes each line with the level, as the journal treats each as an entry.
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
