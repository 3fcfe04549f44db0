//! The folders that the system watches, by path and by identity.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::super::scan::Identity;

/// The folders that the system watches.
#[derive(Default)]
pub struct Watched {
    by_path: HashMap<PathBuf, Identity>,
    by_identity: HashMap<Identity, PathBuf>,
}

impl Watched {
    /// Whether this folder is watched at this path.
    pub fn has(&self, path: &Path, identity: Identity) -> bool {
        self.by_path.get(path) == Some(&identity)
    }

    pub fn insert(&mut self, path: PathBuf, identity: Identity) {
        self.by_identity.insert(identity, path.clone());
        self.by_path.insert(path, identity);
    }

    /// Forgets the folder that was watched at this path, and the former path of this folder. Returns both paths.
    pub fn forget(&mut self, path: &Path, identity: Identity) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self.by_identity.remove(&identity).into_iter().collect();
        if let Some(before) = self.by_path.get(path).filter(|before| **before != identity) {
            self.by_identity.remove(before);
            paths.push(path.to_owned());
        }
        for path in &paths {
            self.by_path.remove(path);
        }
        paths
    }

    pub fn retain(&mut self, mut is_kept: impl FnMut(&Path) -> bool) {
        let Self { by_path, by_identity } = self;
        by_path.retain(|path, identity| {
            let is_kept = is_kept(path);
            if !is_kept {
                by_identity.remove(identity);
            }
            is_kept
        });
    }
}
