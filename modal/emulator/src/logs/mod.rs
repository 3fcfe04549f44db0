//! What containers print: kept per app, in the order in which it came, in files of bounded size and number.

mod segments;

use std::{collections::HashMap, io, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use self::segments::Position;
use self::segments::Segments;

/// Where a line came from; the numbers are Modal's `FileDescriptor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Stdout = 1,
    Stderr = 2,
    /// A note of Local Modal.
    System = 3,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Nanoseconds since 1970.
    #[serde(rename = "t")]
    pub at: u64,
    pub source: Source,
    /// The container that printed it.
    pub task_id: String,
    pub function_id: String,
    /// What it was doing, if it was doing one thing only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub call_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub input_id: String,
    /// The text, with the line's end if it had one.
    pub data: String,
}

/// The logs of all apps.
pub struct Logs {
    root: PathBuf,
    apps: Mutex<HashMap<String, Arc<AppLog>>>,
}

/// The log of one app.
pub struct AppLog {
    segments: Mutex<Segments>,
    /// Changes with every line.
    added: watch::Sender<()>,
}

impl Logs {
    pub fn new(root: PathBuf) -> Self {
        Self { root, apps: Mutex::default() }
    }

    /// The log of an app; empty if it never printed anything.
    pub fn app(&self, app_id: &str) -> io::Result<Arc<AppLog>> {
        let mut apps = self.apps.lock();
        if let Some(app) = apps.get(app_id) {
            return Ok(app.clone());
        }
        let segments = Segments::open(self.root.join(app_id))?;
        let app = Arc::new(AppLog { segments: Mutex::new(segments), added: watch::Sender::new(()) });
        apps.insert(app_id.to_owned(), app.clone());
        Ok(app)
    }

    /// Drops the logs that are neither written nor followed.
    pub fn close_unused(&self) {
        self.apps.lock().retain(|_, app| Arc::strong_count(app) > 1);
    }
}

impl AppLog {
    /// Adds lines.
    pub fn append(&self, lines: &[Line]) -> io::Result<()> {
        self.segments.lock().append(lines)?;
        self.added.send_replace(());
        Ok(())
    }

    /// Lines from a position on, at most about a megabyte of them, and the position after them.
    pub fn read(&self, from: Position) -> io::Result<(Vec<Line>, Position)> {
        let segments = self.segments.lock().clone();
        segments.read(from)
    }

    /// Changes with every line that is added.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.added.subscribe()
    }
}
