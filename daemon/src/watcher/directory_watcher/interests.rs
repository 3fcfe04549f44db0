//! Filters events: only those about files that belong on the Volume, and about the path to them, are relevant.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    path::PathBuf,
    sync::Arc,
};

use notify::{
    Event, EventKind,
    event::{AccessKind, AccessMode},
};
use parking_lot::{Mutex, MutexGuard};

use super::super::rules;

/// The interests in the watched folders, by path.
#[derive(Clone, Default)]
pub struct Interests(Arc<Mutex<HashMap<PathBuf, Interest>>>);

/// Which entries of a folder are relevant.
#[derive(Default)]
pub struct Interest {
    /// Whether all of its files are relevant, as they may belong on the Volume.
    pub has_files: bool,
    /// Entries that are always relevant: links, and folders on the path to their targets.
    pub entries: HashSet<OsString>,
}

impl Interests {
    pub fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Interest>> {
        self.0.lock()
    }

    /// Whether an event can mean that a file on the Volume is outdated.
    pub fn is_relevant(&self, event: &Event) -> bool {
        if event.need_rescan() || event.paths.is_empty() {
            return true;
        }
        if let EventKind::Access(access) = event.kind
            && access != AccessKind::Close(AccessMode::Write)
        {
            return false;
        }
        let interests = self.lock();
        let is_of_use = |path: &PathBuf| {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
            interests.get(folder).is_some_and(|it| {
                it.entries.contains(name) || it.has_files && rules::is_of_use(&name.to_string_lossy())
            })
        };
        event.paths.iter().any(|path| interests.get(path).is_some_and(|it| it.has_files) || is_of_use(path))
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag};

    use super::*;

    #[test]
    fn only_events_about_watched_paths_are_relevant() {
        let interests = Interests::default();
        let files = Interest { has_files: true, ..Interest::default() };
        let entries = Interest { entries: ["d".into()].into(), ..Interest::default() };
        interests.lock().extend([("/d/.dags".into(), files), ("/".into(), entries)]);
        let is_relevant = |kind: EventKind, path: &str| interests.is_relevant(&Event::new(kind).add_path(path.into()));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(
            is_relevant(written, "/d/.dags/etl.py")
                && is_relevant(EventKind::Create(CreateKind::Folder), "/d/.dags/new")
        );
        assert!(is_relevant(EventKind::Any, "/d/.dags"), "the folder itself");
        assert!(!is_relevant(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/d/.dags/etl.py"));
        assert!(!is_relevant(written, "/d/.dags/.etl.py.swp") && !is_relevant(EventKind::Any, "/d/.dags/etl.py~"));
        assert!(is_relevant(EventKind::Any, "/d"), "on the path to the folder");
        assert!(!is_relevant(EventKind::Any, "/e") && !is_relevant(EventKind::Any, "/d/etl.py"), "beside the path");
    }

    #[test]
    fn overflow_event_is_relevant() {
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert!(Interests::default().is_relevant(&overflow));
    }
}
