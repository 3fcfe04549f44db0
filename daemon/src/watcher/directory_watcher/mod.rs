//! Detects that something in a watched folder has changed. Every change leads to a scan of the whole folder, so lost,
//! repeated and late events make no difference.

mod interests;
mod removals;
#[cfg(test)]
mod tests;
mod watched;

use std::{
    collections::HashMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{sync::watch, time::Instant};

use self::{
    interests::{Interest, Interests},
    removals::Removals,
    watched::Watched,
};
use super::scan::{Identity, Visitor, identity};

/// Pause before the system is asked again after a refusal: each attempt uses up more of its limits.
const REFUSAL_PERIOD: Duration = Duration::from_secs(300);
/// Publishes the time of the last possible change.
pub type ChangeSender = watch::Sender<Instant>;

/// Watches the folders of one watch with the system's file events (inotify on Linux): those with its files, and those
/// on the path to them.
pub struct DirectoryWatcher {
    changes: ChangeSender,
    root: PathBuf,
    watcher: Option<RecommendedWatcher>,
    /// Why the folder is polled.
    warning: Option<String>,
    /// When the system last refused to report changes.
    refused_at: Option<Instant>,
    watched: Watched,
    removals: Removals,
    interests: Interests,
    /// The folders visited by the current scan. The system watches a folder by its identity, under one path.
    seen: HashMap<Identity, PathBuf>,
}

impl DirectoryWatcher {
    /// Creates an inactive watcher; call [`DirectoryWatcher::start`] to start it.
    pub fn new(changes: ChangeSender, root: PathBuf) -> Self {
        Self {
            changes,
            root,
            watcher: None,
            warning: None,
            refused_at: None,
            watched: Watched::default(),
            removals: Removals::default(),
            interests: Interests::default(),
            seen: HashMap::new(),
        }
    }

    /// Asks the system to report changes. If it refuses, falls back to polling, with a warning.
    pub fn start(&mut self) {
        if self.watcher.is_some() || self.refused_at.is_some_and(|at| at.elapsed() < REFUSAL_PERIOD) {
            return;
        }
        let (changes, interests, removals) = (self.changes.clone(), self.interests.clone(), self.removals.clone());
        let handler = move |event: notify::Result<Event>| {
            let is_relevant = event.map_or(true, |event| {
                removals.record(&event);
                interests.is_relevant(&event)
            });
            if is_relevant {
                changes.send_replace(Instant::now());
            }
        };
        self.watched = Watched::default();
        self.refused_at = None;
        match RecommendedWatcher::new(handler, notify::Config::default()) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => self.fall_back_to_polling(&error),
        }
    }

    /// Prepares for a scan: removed folders are no longer watched, even if the same folder is back at its path.
    pub fn begin_scan(&mut self) {
        // The scan adds each folder again before it reads it.
        self.interests.lock().clear();
        self.seen.clear();
        let removed = self.removals.take();
        if removed.is_incomplete {
            self.watched = Watched::default();
        } else if !removed.paths.is_empty() {
            self.watched.retain(|path| !path.ancestors().any(|part| removed.paths.contains(part)));
        }
    }

    /// Stops watching; the folder is polled for the reason given.
    pub fn stop(&mut self, warning: &str) {
        self.watcher = None;
        self.warning = Some(warning.to_owned());
    }

    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Ends a scan: stops watching folders that are gone. After an incomplete scan, perhaps because of too many folders,
    /// only the path to them stays watched.
    pub fn finish_scan(&mut self, is_complete: bool) {
        if self.watcher.is_some() && self.warning.take().is_some() {
            tracing::info!(watch.directory = %self.root.display(), "the system reports changes again");
        }
        let Some(watcher) = &mut self.watcher else { return };
        if !is_complete {
            let mut interests = self.interests.lock();
            interests.retain(|_, interest| !interest.entries.is_empty());
            interests.values_mut().for_each(|interest| interest.has_files = false);
            self.seen.retain(|_, path| interests.contains_key(path));
        }
        self.watched.retain(|path| {
            let is_seen = self.interests.lock().contains_key(path);
            if !is_seen {
                // The system has usually stopped watching it already.
                let _ = watcher.unwatch(path);
            }
            is_seen
        });
    }

    /// Watches a folder unless it is watched already, and updates its interest.
    fn watch(&mut self, path: &Path, identity: Identity, update: impl FnOnce(&mut Interest)) {
        let Some(watcher) = &mut self.watcher else { return };
        let is_new = !self.seen.contains_key(&identity);
        let known = self.seen.entry(identity).or_insert_with(|| path.to_owned());
        update(self.interests.lock().entry(known.clone()).or_default());
        if !is_new || self.watched.has(path, identity) {
            return;
        }
        // Unwatching the old name later would also stop the watch under the new one.
        for old in self.watched.forget(path, identity) {
            let _ = watcher.unwatch(&old);
        }
        match watcher.watch(path, RecursiveMode::NonRecursive) {
            Ok(()) => self.watched.insert(path.to_owned(), identity),
            // It was just removed; its parent reports that.
            Err(error) if is_absence(&error) => {}
            Err(error) => self.fall_back_to_polling(&error),
        }
    }

    fn fall_back_to_polling(&mut self, error: &notify::Error) {
        let warning = warning(error);
        if self.warning.as_ref() != Some(&warning) {
            tracing::warn!(watch.directory = %self.root.display(), warning, "a folder is polled");
        }
        self.refused_at = Some(Instant::now());
        self.stop(&warning);
    }
}

impl Visitor for DirectoryWatcher {
    fn folder(&mut self, path: &Path, identity: Identity) {
        self.watch(path, identity, |interest| interest.has_files = true);
    }

    fn step(&mut self, folder: &Path, name: &OsStr) {
        // The parent reports a folder that does not exist.
        let Ok(metadata) = folder.metadata() else { return };
        let name = name.to_owned();
        self.watch(folder, identity(&metadata), move |interest| {
            interest.entries.insert(name);
        });
    }
}

fn is_absence(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
        }
        _ => false,
    }
}

/// Returns the warning for the user if the system refuses to report changes.
fn warning(error: &notify::Error) -> String {
    /// "Too many open files", which here means inotify instances.
    const EMFILE: i32 = 24;
    let raise = |limit: &str| {
        format!(
            "the system's limit {limit} is used up, so the folder is polled every few seconds; \
             `sudo sysctl {limit}=524288` raises it until the next boot"
        )
    };
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => raise("fs.inotify.max_user_watches"),
        notify::ErrorKind::Io(error) if error.raw_os_error() == Some(EMFILE) => raise("fs.inotify.max_user_instances"),
        _ => format!("the system does not report changes ({error}), so the folder is polled every few seconds"),
    }
}
