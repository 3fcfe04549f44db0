//! The log of a build and its outcome, for all who follow it.

use std::collections::VecDeque;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::error::BuildError;
use crate::state::{Built, Now};

/// The most lines of one build that are kept; the oldest are dropped first.
const KEPT_LINES: usize = 5_000;
/// Shorter values are not hidden, because that would make a log unreadable.
const SHORTEST_SECRET: usize = 4;

/// The first line of a step begins with this.
pub const STEP: &str = "=> ";

/// A line of a build.
#[derive(Debug, Clone)]
pub struct Line {
    pub text: String,
    /// Seconds since 1970.
    pub at: f64,
}

#[derive(Default)]
struct Contents {
    lines: VecDeque<Line>,
    /// The number of the first line that is kept.
    first: usize,
    secrets: Vec<String>,
    outcome: Option<Result<Built, BuildError>>,
}

/// The log of one build.
#[derive(Default)]
pub struct Log {
    contents: Mutex<Contents>,
    changed: watch::Sender<()>,
}

/// The part of a log after a position.
pub struct LogChunk {
    pub lines: Vec<Line>,
    /// The position after them.
    pub position: usize,
    /// The outcome of the build, if it has ended and these are its last lines.
    pub outcome: Option<Result<Built, BuildError>>,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock()
    }

    /// Hides these values from now on.
    pub fn hide<'a>(&self, values: impl IntoIterator<Item = &'a String>) {
        let long = values.into_iter().filter(|value| value.len() >= SHORTEST_SECRET).cloned();
        self.lock().secrets.extend(long);
    }

    /// A text without hidden values.
    fn redacted(&self, text: &str) -> String {
        let hidden = self.lock().secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "****"));
        without_credentials(&hidden)
    }

    /// Adds a text, which may have several lines.
    pub fn write(&self, text: &str) {
        let text = self.redacted(text);
        let mut contents = self.lock();
        for line in text.lines() {
            contents.lines.push_back(Line { text: line.to_owned(), at: Now::read().wall });
            if contents.lines.len() > KEPT_LINES {
                contents.lines.pop_front();
                contents.first += 1;
            }
        }
        drop(contents);
        self.changed.send_replace(());
    }

    /// The last lines of the latest step, for an error message.
    pub fn tail(&self, lines: usize) -> String {
        let contents = self.lock();
        let step = contents.lines.iter().rposition(|line| line.text.starts_with(STEP)).unwrap_or(0);
        let from = contents.lines.len().saturating_sub(lines).max(step);
        contents.lines.iter().skip(from).map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// Ends the log.
    pub fn finish(&self, outcome: Result<Built, BuildError>) {
        let outcome = outcome.map_err(|BuildError(text)| BuildError(self.redacted(&text)));
        self.lock().outcome = Some(outcome);
        self.changed.send_replace(());
    }

    /// The outcome of the build, if it has ended.
    pub fn outcome(&self) -> Option<Result<Built, BuildError>> {
        self.lock().outcome.clone()
    }

    /// The log after a position.
    pub fn after(&self, position: usize) -> LogChunk {
        let contents = self.lock();
        // A position beyond the end is one in the log of an earlier build of the image.
        let known = position <= contents.first + contents.lines.len();
        let skip = if known { position.saturating_sub(contents.first) } else { 0 };
        LogChunk {
            lines: contents.lines.iter().skip(skip).cloned().collect(),
            position: contents.first + contents.lines.len(),
            outcome: contents.outcome.clone(),
        }
    }

    /// A subscription to changes of the log.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// Hides names and passwords in URLs.
fn without_credentials(text: &str) -> String {
    let mut parts = text.split("://");
    let mut hidden = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let authority = part.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(part.len());
        let rest = part[..authority].rfind('@').map_or(part, |at| &part[at..]);
        hidden.push_str("://");
        if rest.len() < part.len() {
            hidden.push_str("****");
        }
        hidden.push_str(rest);
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_redacted_in_the_build_log() {
        let log = Log::default();
        log.hide(&["sesame".to_owned(), "ab".to_owned()]);
        log.write("before\n=> open sesame ab\nfrom https://me:pw@host/x and git+ssh://git@host/y, http://host/a@b");
        assert_eq!(log.tail(9), "=> open **** ab\nfrom https://****@host/x and git+ssh://****@host/y, http://host/a@b");
    }

    #[test]
    fn reader_resumes_at_its_position() {
        let log = Log::default();
        log.write("a\nb");
        let chunk = log.after(0);
        assert_eq!((chunk.lines.len(), chunk.position), (2, 2));
        for n in 0..KEPT_LINES {
            log.write(&n.to_string());
        }
        let chunk = log.after(chunk.position);
        assert_eq!((chunk.lines.len(), chunk.position), (KEPT_LINES, KEPT_LINES + 2));
        assert_eq!(chunk.lines[0].text, "0");
        assert_eq!(log.after(chunk.position + 1).lines.len(), KEPT_LINES);
        log.finish(Err(BuildError("x".into())));
        assert!(log.after(chunk.position).outcome.is_some());
    }
}
