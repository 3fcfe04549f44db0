//! The limit on a container's memory. It is watched from here, as a limit that the kernel enforces takes rights that
//! not every user has; what a container shares with others (its fork server, mostly) counts in part.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use rustix::process::Pid;

use super::stat::Stat;
use crate::files::blocking;

/// How often the memory is looked at: more often would cost, and a limit that is passed for so long does no harm.
const LOOK: Duration = Duration::from_millis(250);

/// Returns when a process and those below it use more than `limit` MiB together.
pub async fn exceeds(leader: Pid, limit: u32) {
    if limit == 0 {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(LOOK).await;
        match blocking(move || Ok(used_kibibytes(leader))).await {
            Ok(used) if used > u64::from(limit) << 10 => return,
            _ => {}
        }
    }
}

fn used_kibibytes(leader: Pid) -> u64 {
    // Not by the process group: a task of Airflow's has one of its own.
    let mut below: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (Some(pid), Some(stat)) = (pid, Stat::read(&entry.path())) {
            below.entry(stat.parent).or_default().push(pid);
        }
    }
    let (mut found, mut used) = (vec![leader.as_raw_nonzero().get()], 0);
    while let Some(pid) = found.pop() {
        used += proportional_set_size(&Path::new("/proc").join(pid.to_string()));
        found.extend(below.remove(&pid).unwrap_or_default());
    }
    used
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
        let own = rustix::process::getpid();
        assert!(used_kibibytes(own) > 500);
    }
}
