//! Paths removed from the watched folders since the last scan.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use notify::{
    Event, EventKind,
    event::{ModifyKind, RenameMode},
};
use parking_lot::{Mutex, MutexGuard};

/// Limit on the removed paths that are remembered until the next scan.
const MOST_PATHS: usize = 10_000;

/// Paths that were removed or moved away since the last scan. The system drops their watches without a report.
#[derive(Clone, Default)]
pub struct Removals(Arc<Mutex<Removed>>);

#[derive(Default)]
pub struct Removed {
    pub paths: HashSet<PathBuf>,
    /// Whether paths are missing because there were too many.
    pub is_incomplete: bool,
}

impl Removals {
    /// Returns the paths and clears them.
    pub fn take(&self) -> Removed {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Removed> {
        self.0.lock()
    }

    pub fn record(&self, event: &Event) {
        let is_removal =
            matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)));
        if !is_removal && !event.need_rescan() {
            return;
        }
        let mut removed = self.lock();
        removed.paths.extend(event.paths.iter().cloned());
        if removed.paths.len() > MOST_PATHS || event.need_rescan() {
            *removed = Removed { is_incomplete: true, ..Removed::default() };
        }
    }
}
