//! The Python package and its lock file, as contained in the binary.

use include_dir::{Dir, File, include_dir};
use sha2::{Digest, Sha256};

static PACKAGE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../modal_functions/airflow_serverless");

/// The pinned runtime: every package with version and hashes.
pub(super) const LOCK: &str = include_str!("../../../modal_functions/requirements.lock");

/// Name of the package's folder.
pub(super) const PACKAGE_NAME: &str = "airflow_serverless";

/// Returns the package's files, without bytecode of the developer's Python.
pub(super) fn package_files() -> Vec<&'static File<'static>> {
    let mut files = Vec::new();
    let mut folders = vec![&PACKAGE];
    while let Some(folder) = folders.pop() {
        folders.extend(folder.dirs());
        files.extend(folder.files().filter(|file| file.path().extension().is_some_and(|kind| kind != "pyc")));
    }
    files.sort_by_key(|file| file.path());
    files
}

pub(super) fn package_hash() -> String {
    let mut hasher = Sha256::new();
    for file in package_files() {
        hasher.update(file.path().to_string_lossy().as_bytes());
        hasher.update((file.contents().len() as u64).to_le_bytes());
        hasher.update(file.contents());
    }
    short(&hasher.finalize())
}

pub(super) fn lock_hash() -> String {
    short(&Sha256::digest(LOCK))
}

fn short(hash: &[u8]) -> String {
    hex::encode(&hash[..8])
}
