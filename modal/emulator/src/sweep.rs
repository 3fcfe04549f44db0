//! Removal of files that nothing refers to any more.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;

use crate::{
    files::{blocking, sync_file_system},
    images::COMPLETE,
    shared::Shared,
    state::State,
};

/// How long the output of containers is kept.
const LOGS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long an environment that no image has any more is kept after its last use: another deployment may need it.
const ENVIRONMENTS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long an upload may take, and how long it is kept until something refers to it.
const UPLOADS_KEPT: Duration = Duration::from_secs(6 * 3600);
const SWEEP_PERIOD: Duration = Duration::from_secs(1800);

/// The names of files that are still in use, and of Volumes that can be removed. A Volume is never removed just because
/// the state does not have it: its files may be all that is left of a lost database.
#[derive(Debug, Default)]
pub struct Keep {
    trees: BTreeSet<String>,
    files: BTreeSet<String>,
    calls: BTreeSet<String>,
    environments: BTreeSet<String>,
    homes: BTreeSet<String>,
    dropped_volumes: BTreeSet<String>,
}

impl Keep {
    /// Everything that `state` refers to.
    pub fn of(state: &State) -> Self {
        let running = state.tasks.values().map(|task| &task.definition);
        Self {
            trees: state.definitions.values().chain(running).map(|definition| state.tree_name(definition)).collect(),
            calls: state.calls.keys().cloned().collect(),
            environments: state.images.values().filter_map(|image| Some(image.built.as_ref()?.key.clone())).collect(),
            homes: state.images.values().filter_map(|image| image.built.as_ref()?.home.clone()).collect(),
            files: state.referenced_files().collect(),
            dropped_volumes: state.dropped_volumes.iter().cloned().collect(),
        }
    }
}

/// Clears the data folder before the server starts.
pub fn at_start(data_dir: &Path, keep: &Keep) -> io::Result<()> {
    remove_unless(&data_dir.join("trees"), |path| is_in(path, &keep.trees));
    remove_unless(&data_dir.join("streams"), |path| is_in(path, &keep.calls));
    remove_unless(&data_dir.join("volumes"), |path| !is_in(path, &keep.dropped_volumes));
    // Their URLs are no longer valid.
    remove_unless(&data_dir.join("uploads"), |_| false);
    remove_unless(&data_dir.join("images"), |path| {
        let complete = path.join(COMPLETE);
        complete.is_file() && (is_in(path, &keep.environments) || !is_older(&complete, ENVIRONMENTS_KEPT))
    });
    remove_unless(&data_dir.join("homes"), |path| is_in(path, &keep.homes));
    remove_old_logs(data_dir);
    // A client may still refer to what it uploaded, but after a crash of the machine the upload may be incomplete.
    let (note, boot) = (data_dir.join("boot"), fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default());
    let same_boot = !boot.is_empty() && fs::read(&note).is_ok_and(|last| last == boot);
    if sweep_files(data_dir, keep, if same_boot { UPLOADS_KEPT } else { Duration::ZERO }) {
        // The last run may not have synced it.
        sync_file_system(data_dir)?;
    }
    if same_boot { Ok(()) } else { fs::write(note, boot) }
}

/// Clears the data folder periodically, until `stop`.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP_PERIOD) => {}
            () = stop.cancelled() => return,
        }
        shared.site.trim_offers();
        let (keep, data_dir) = (shared.read(Keep::of), shared.options.data_dir.clone());
        let swept = blocking(move || {
            sweep_files(&data_dir, &keep, UPLOADS_KEPT);
            remove_unless(&data_dir.join("uploads"), |path| !is_older(path, UPLOADS_KEPT));
            // A new one may belong to a definition that was added after the state was read.
            remove_unless(&data_dir.join("trees"), |path| is_in(path, &keep.trees) || !is_older(path, UPLOADS_KEPT));
            // A container may still read it, or a build may not have recorded it yet.
            remove_unless(&data_dir.join("homes"), |path| is_in(path, &keep.homes) || !is_older(path, UPLOADS_KEPT));
            remove_old_logs(&data_dir);
            Ok(())
        });
        if let Err(error) = swept.await {
            tracing::debug!(%error, "the removal of unused files failed");
        }
    }
}

/// Removes files from the store that nothing refers to, and that were not used for `trusted`. Returns whether some
/// unreferenced files stay.
fn sweep_files(data_dir: &Path, keep: &Keep, trusted: Duration) -> bool {
    let some_stay = Cell::new(false);
    let is_new = |path: &Path| {
        let new = !is_older(path, trusted);
        some_stay.set(some_stay.get() || new);
        new
    };
    for folder in entries(&data_dir.join("files")) {
        remove_unless(&folder, |path| is_in(path, &keep.files) || is_new(path));
    }
    some_stay.get()
}

fn remove_old_logs(data_dir: &Path) {
    for folder in entries(&data_dir.join("logs")) {
        remove_unless(&folder, |path| !is_older(path, LOGS_KEPT));
        // Fails if it is not empty. The app's next output creates it again.
        fs::remove_dir(&folder).ok();
    }
}

fn is_older(path: &Path, limit: Duration) -> bool {
    let modified = path.metadata().and_then(|meta| meta.modified());
    modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age >= limit))
}

fn is_in(path: &Path, names: &BTreeSet<String>) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(name))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn remove_unless(folder: &Path, keep: impl Fn(&Path) -> bool) {
    for path in entries(folder).iter().filter(|path| !keep(path)) {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "an unused file could not be removed");
            }
            _ => tracing::debug!(path = %path.display(), "removed an unused file"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreferenced_files_are_deleted_at_start() {
        let data = tempfile::tempdir().unwrap();
        let kept = [
            "trees/de-live/file",
            "streams/fc-1/file",
            "files/aa/aa1",
            "volumes/vo-1/precious",
            "images/used/complete.json",
            "images/new/complete.json",
            "homes/home-used/root/file",
        ];
        let gone = [
            "trees/de-gone/file",
            "trees/.tree-1/file",
            "streams/fc-2/file",
            "files/aa/aa2",
            "uploads/up-1",
            "volumes/vo-2/file",
            "images/old/complete.json",
            "images/half/file",
            "homes/fu-cut-off/root/file",
        ];
        for path in kept.iter().chain(&gone) {
            let path = data.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        for name in ["used", "old"] {
            let complete = fs::File::open(data.path().join("images").join(name).join(COMPLETE)).unwrap();
            complete.set_modified(SystemTime::now() - 2 * ENVIRONMENTS_KEPT).unwrap();
        }
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let keep = Keep {
            trees: set(&["de-live"]),
            files: set(&["aa1"]),
            calls: set(&["fc-1"]),
            environments: set(&["used", "half"]),
            homes: set(&["home-used"]),
            dropped_volumes: set(&["vo-2"]),
        };
        at_start(data.path(), &keep).unwrap();
        for path in kept {
            assert!(data.path().join(path).exists(), "{path}");
        }
        for path in gone {
            assert!(!data.path().join(path).exists(), "{path}");
        }
        // Nothing went down since: an upload may still be referred to, until it is old.
        let upload = data.path().join("files/aa/aa3");
        fs::write(&upload, "x").unwrap();
        at_start(data.path(), &keep).unwrap();
        assert!(upload.exists());
        fs::File::open(&upload).unwrap().set_modified(SystemTime::now() - 2 * UPLOADS_KEPT).unwrap();
        at_start(data.path(), &keep).unwrap();
        assert!(!upload.exists());
    }
}
