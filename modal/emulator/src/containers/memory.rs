//! The limit on a container's memory. It is enforced by polling, because a limit of the kernel requires rights that not
//! every user has. Memory that a container shares with others (mostly its fork server) counts in part.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use rustix::process::Pid;

use crate::{files::blocking, process::Stat};

/// How often the memory is measured. A limit may be exceeded for so long.
const POLL_PERIOD: Duration = Duration::from_millis(250);

/// Returns when a process and its descendants use more than `limit` MiB together.
pub async fn exceeds(leader: Pid, limit: u32) {
    if limit == 0 {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(POLL_PERIOD).await;
        match blocking(move || Ok(used_kibibytes(leader))).await {
            Ok(used) if used > u64::from(limit) << 10 => return,
            _ => {}
        }
    }
}

fn used_kibibytes(leader: Pid) -> u64 {
    // Not by the process group: a task of Airflow has its own.
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

/// The memory of a process in KiB; 0 if it has ended.
fn proportional_set_size(process: &Path) -> u64 {
    let rollup = fs::read_to_string(process.join("smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_process_is_read() {
        let own = rustix::process::getpid();
        assert!(used_kibibytes(own) > 500);
    }
}
