//! Homes with an environment that is ready, created once per interval and copied for each test that needs one.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::UNIX_EPOCH,
};

use crate::{Installation, binaries, workspace};

impl Installation {
    /// Creates an installation whose environment `dev` is ready and ticks every `interval` seconds, with a running
    /// daemon.
    pub fn with_dev(interval: u32) -> Self {
        let it = Self::new();
        copy(&template(interval), &it.home());
        it.cli(&["daemon", "start"]).succeeded();
        it
    }
}

/// Returns the home to copy. The first test that needs it creates it, again after each build of the daemon.
fn template(interval: u32) -> PathBuf {
    let templates = workspace().join("target/homes");
    fs::create_dir_all(&templates).expect("a folder");
    let home = templates.join(format!("{}-every-{interval}", daemon_build()));
    let lock = File::create(templates.join(format!("every-{interval}.lock"))).expect("a lock file");
    lock.lock().expect("the lock");
    if !home.exists() {
        remove_old(&templates, &format!("-every-{interval}"));
        let it = Installation::new();
        it.create_dev(interval).succeeded();
        it.cli(&["daemon", "stop"]).succeeded();
        let partial = home.with_extension("partial");
        copy(&it.home(), &partial);
        fs::rename(partial, &home).expect("a home in its place");
    }
    home
}

/// Identifies the build of the daemon under test: another build would redeploy its functions.
fn daemon_build() -> String {
    let metadata = fs::metadata(binaries().join("airflowd")).expect("airflowd");
    let modified = metadata.modified().expect("a time").duration_since(UNIX_EPOCH).expect("a time after 1970");
    format!("{:x}-{:x}", modified.as_nanos(), metadata.len())
}

fn remove_old(templates: &Path, ending: &str) {
    for entry in fs::read_dir(templates).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(ending)) && path.is_dir() {
            fs::remove_dir_all(path).expect("an old home removed");
        }
    }
}

/// Copies a home with its file times, on which Python's bytecode cache depends.
fn copy(from: &Path, to: &Path) {
    // Left by a killed test.
    fs::remove_dir_all(to).ok();
    let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs");
    assert!(copied.success(), "{} was not copied", from.display());
}
