//! Resource usage of a daemon.

use std::{
    fmt, fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// The usage at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Footprint {
    /// Memory that only the daemon uses. Excludes its binary: how much of that is in memory depends on the load of the
    /// machine.
    pub memory_kib: u64,
    pub files: usize,
    pub threads: usize,
    /// Running child processes.
    pub children: usize,
    /// Size of the registry with its WAL.
    pub registry_kib: u64,
    /// Size of Local Modal's database with its WAL.
    pub modal_kib: u64,
    /// Size of the Volumes.
    pub volumes_kib: u64,
    /// Size of the rest of the daemon's home, including logs.
    pub rest_kib: u64,
}

impl Footprint {
    pub fn of(pid: u32, home: &Path) -> Self {
        let process = Path::new("/proc").join(pid.to_string());
        let count = |what: &str| fs::read_dir(process.join(what)).expect(what).count();
        let smaps = fs::read_to_string(process.join("smaps_rollup")).expect("its memory");
        let smaps = |name: &str| -> u64 {
            let kib = smaps.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
            kib.and_then(|kib| kib.parse().ok()).expect(name)
        };
        let children = fs::read_dir(process.join("task")).expect("threads").filter_map(|thread| {
            // A thread may end between the two reads.
            let children = fs::read_to_string(thread.ok()?.path().join("children")).ok()?;
            Some(children.split_whitespace().count())
        });
        let with_log = |name: &str| size(&home.join(name)) + size(&home.join(format!("{name}-wal")));
        let (registry, modal) = (with_log("data/registry.db"), with_log("data/modal/state.db"));
        let volumes = size(&home.join("data/modal/volumes"));
        Self {
            memory_kib: smaps("Pss_Anon:") + smaps("Pss_Shmem:") + smaps("SwapPss:"),
            files: count("fd"),
            threads: count("task"),
            children: children.sum(),
            registry_kib: registry >> 10,
            modal_kib: modal >> 10,
            volumes_kib: volumes >> 10,
            rest_kib: (size(home) - registry - modal - volumes) >> 10,
        }
    }
}

/// Returns the peak memory of a process in KiB while `work` runs, without memory-mapped files such as its program.
pub fn peak_kib<T>(pid: u32, work: impl FnOnce() -> T) -> (u64, T) {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !is_done.load(Ordering::Relaxed) {
                peak = peak.max(own_kib(pid));
                thread::sleep(BETWEEN_LOOKS);
            }
            peak
        });
        let done = work();
        is_done.store(true, Ordering::Relaxed);
        (watcher.join().expect("the peak"), done)
    })
}

fn own_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let field = |name: &str| -> u64 {
        let kib = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse().ok()).expect(name)
    };
    field("RssAnon:") + field("RssShmem:") + field("VmSwap:")
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_kib, files, threads, children, registry_kib, modal_kib, volumes_kib, rest_kib } = self;
        write!(
            f,
            "memory {memory_kib} KiB, {files} files, {threads} threads, {children} children; registry {registry_kib} KiB, \
             Local Modal {modal_kib} KiB, Volumes {volumes_kib} KiB, the rest {rest_kib} KiB"
        )
    }
}

/// Returns the size of a file, or of all files below a folder; does not follow links. Ignores files that disappear.
fn size(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
            entries.map(|entry| size(&entry.path())).sum()
        }
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    }
}
