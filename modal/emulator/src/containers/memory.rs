//! The limit on a container's memory. It is watched from here, as a limit that the kernel enforces takes rights that
//! not every user has; what a container shares with others (its fork server, mostly) counts in part.

use std::{fs, path::Path, time::Duration};

use rustix::process::Pid;

use crate::files::blocking;

/// How often the memory is looked at: more often would cost, and a limit that is passed for so long does no harm.
const LOOK: Duration = Duration::from_millis(250);

/// Returns when the processes of a group use more than `limit` MiB together.
pub async fn exceeds(group: Pid, limit: u32) {
    if limit == 0 {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(LOOK).await;
        match blocking(move || Ok(used_kibibytes(group))).await {
            Ok(used) if used > u64::from(limit) << 10 => return,
            _ => {}
        }
    }
}

fn used_kibibytes(group: Pid) -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    processes
        .filter(|process| process_group(process) == Some(group))
        .map(|process| proportional_set_size(&process))
        .sum()
}

/// The group of a process, by its folder in `/proc`; the kernel's own are in none.
fn process_group(process: &Path) -> Option<Pid> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The command's name is in brackets, and may hold anything; state, parent and group follow it.
    let (_, fields) = stat.rsplit_once(')')?;
    Pid::from_raw(fields.split_whitespace().nth(2)?.parse().ok()?)
}

/// What a process uses, in KiB; nothing if it is gone.
fn proportional_set_size(process: &Path) -> u64 {
    let rollup = fs::read_to_string(process.join("smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted() {
        let own = rustix::process::getpgrp();
        assert!(used_kibibytes(own) > 500);
    }
}
