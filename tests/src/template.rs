//! Homes with an environment that is ready, made once for each interval and copied for each test that needs one.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::UNIX_EPOCH,
};

use crate::{Installation, binaries, workspace};

impl Installation {
    /// An installation with environment `dev`, ready, whose cron ticks every `interval` seconds, and a daemon that runs.
    pub fn with_dev(interval: u32) -> Self {
        let it = Self::new();
        copy(&template(interval), &it.home());
        it.cli(&["daemon", "start"]).succeeded();
        it
    }
}

/// The home to copy. It is made by the first test that asks for it, and by another one after each build of the daemon.
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

/// Names the daemon that the tests run: another one would deploy its own functions when it finds the home.
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

/// Copies a home with the times of its files, by which Python knows what it has compiled.
fn copy(from: &Path, to: &Path) {
    // One of a test that was killed.
    fs::remove_dir_all(to).ok();
    let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs");
    assert!(copied.success(), "{} was not copied", from.display());
}
