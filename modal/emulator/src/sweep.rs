//! Removing from the disk what nothing refers to any more.

use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use crate::{images::COMPLETE, state::State};

/// How long what containers printed is kept.
const LOGS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long an environment that no image has any more is kept after its last use: another deployment may lead to it.
const ENVIRONMENTS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Names of what has to stay, and of Volumes that have not to. Volumes are never removed just because nothing is known
/// of them: they may be all that is left of a lost database.
#[derive(Debug, Default)]
pub struct Keep {
    trees: BTreeSet<String>,
    files: BTreeSet<String>,
    calls: BTreeSet<String>,
    environments: BTreeSet<String>,
    dropped_volumes: BTreeSet<String>,
}

impl Keep {
    /// What `state` refers to.
    pub fn of(state: &State) -> Self {
        let hashes = state.mounts.values().flat_map(|mount| mount.files.values()).map(|(sha256_hex, _)| sha256_hex);
        Self {
            trees: state.definitions.keys().cloned().collect(),
            files: hashes.cloned().collect(),
            calls: state.calls.keys().cloned().collect(),
            environments: state.images.values().filter_map(|image| Some(image.built.as_ref()?.key.clone())).collect(),
            dropped_volumes: state.dropped_volumes.iter().cloned().collect(),
        }
    }
}

/// Clears the data folder. Only before the server starts: later, an upload may be about to be referred to.
pub fn sweep(data_dir: &Path, keep: &Keep) {
    let now = SystemTime::now();
    let older = |path: &Path, limit: Duration| {
        let modified = path.metadata().and_then(|meta| meta.modified());
        modified.is_ok_and(|time| now.duration_since(time).is_ok_and(|age| age > limit))
    };
    remove_unless(&data_dir.join("trees"), |path| is_in(path, &keep.trees));
    remove_unless(&data_dir.join("streams"), |path| is_in(path, &keep.calls));
    remove_unless(&data_dir.join("volumes"), |path| !is_in(path, &keep.dropped_volumes));
    for folder in entries(&data_dir.join("files")) {
        remove_unless(&folder, |path| is_in(path, &keep.files));
    }
    for folder in entries(&data_dir.join("logs")) {
        remove_unless(&folder, |path| !older(path, LOGS_KEPT));
    }
    remove_unless(&data_dir.join("images"), |path| {
        let complete = path.join(COMPLETE);
        complete.is_file() && (is_in(path, &keep.environments) || !older(&complete, ENVIRONMENTS_KEPT))
    });
}

fn is_in(path: &Path, names: &BTreeSet<String>) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(name))
}

fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn remove_unless(folder: &Path, keep: impl Fn(&Path) -> bool) {
    for path in entries(folder).iter().filter(|path| !keep(path)) {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "could not be removed");
            }
            _ => tracing::debug!(path = %path.display(), "removed, as nothing refers to it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_referred_to_stays() {
        let data = tempfile::tempdir().unwrap();
        let kept = [
            "trees/de-live/file",
            "streams/fc-1/file",
            "files/aa/aa1",
            "volumes/vo-1/precious",
            "images/used/complete.json",
            "images/new/complete.json",
        ];
        let gone = [
            "trees/de-gone/file",
            "trees/.tree-1/file",
            "streams/fc-2/file",
            "files/aa/aa2",
            "volumes/vo-2/file",
            "images/old/complete.json",
            "images/half/file",
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
            dropped_volumes: set(&["vo-2"]),
        };
        sweep(data.path(), &keep);
        for path in kept {
            assert!(data.path().join(path).exists(), "{path}");
        }
        for path in gone {
            assert!(!data.path().join(path).exists(), "{path}");
        }
    }
}
