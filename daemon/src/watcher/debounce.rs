//! Waits until a burst of changes is over: programs save in several steps, and git changes many files.

use std::{path::Path, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::regular_file;

/// Time without a change after which a burst is over: programs save in several steps.
pub const QUIET: Duration = Duration::from_millis(200);
/// Longest wait for the end of a burst.
const LONGEST_BURST: Duration = Duration::from_secs(2);
/// Longest wait for git to finish and remove its lock.
const LONGEST_CHECKOUT: Duration = Duration::from_secs(30);
/// Waits until no change has come for [`QUIET`], within limits. `root` is the watched folder.
pub async fn debounce(changes: &mut watch::Receiver<Instant>, root: &Path) {
    let started = Instant::now();
    loop {
        let folder = root.to_owned();
        // The disk may be slow, or on the network.
        let checked = tokio::task::spawn_blocking(move || is_locked_by_git(&folder)).await;
        let is_checkout = checked.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let limit = if is_checkout { LONGEST_CHECKOUT } else { LONGEST_BURST };
        if started.elapsed() >= limit {
            return;
        }
        let quiet_at = *changes.borrow_and_update() + QUIET;
        let remaining = quiet_at.saturating_duration_since(Instant::now());
        match remaining.is_zero() {
            true if is_checkout => tokio::time::sleep(QUIET).await,
            true => return,
            // With or without another change: the time of the last one counts.
            false => drop(timeout(remaining, changes.changed()).await),
        }
    }
}

/// Size limit of a `.git` file, which is a line with a path.
const LONGEST_GIT_FILE: u64 = 16 << 10;

/// Whether git is changing files in the repository that contains the folder.
fn is_locked_by_git(root: &Path) -> bool {
    root.ancestors().map(|folder| folder.join(".git")).find(|git| git.exists()).is_some_and(|git| {
        // In a worktree, `.git` is a file that names the git directory.
        let place = regular_file::read_text(&git, LONGEST_GIT_FILE).ok().and_then(|text| {
            let place = text.strip_prefix("gitdir:")?.trim().to_owned();
            Some(git.with_file_name(place))
        });
        place.unwrap_or(git).join("index.lock").exists()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn burst_extends_the_debounce_up_to_the_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sender, mut receiver) = watch::channel(Instant::now());
        let started = Instant::now();
        debounce(&mut receiver, folder.path()).await;
        assert_eq!(started.elapsed(), QUIET);

        sender.send_replace(Instant::now());
        let burst = tokio::spawn(async move {
            loop {
                sender.send_replace(Instant::now());
                tokio::time::sleep(QUIET / 2).await;
            }
        });
        let started = Instant::now();
        debounce(&mut receiver, folder.path()).await;
        assert!((LONGEST_BURST..LONGEST_BURST + QUIET).contains(&started.elapsed()), "{:?}", started.elapsed());
        burst.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn git_index_lock_extends_the_debounce() {
        let folder = tempfile::tempdir().expect("a folder");
        let (dags, lock) = (folder.path().join("dags"), folder.path().join(".git/index.lock"));
        for path in [&dags, &folder.path().join(".git")] {
            std::fs::create_dir(path).expect("a folder");
        }
        std::fs::write(&lock, "").expect("a lock");
        let (_sender, mut receiver) = watch::channel(Instant::now());
        let started = Instant::now();
        let unlock = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            std::fs::remove_file(&lock).expect("removed");
        };
        let waited = async {
            debounce(&mut receiver, &dags).await;
            started.elapsed()
        };
        let (waited, ()) = tokio::join!(waited, unlock);
        assert!((Duration::from_secs(5)..Duration::from_secs(6)).contains(&waited), "{waited:?}");
    }
}
