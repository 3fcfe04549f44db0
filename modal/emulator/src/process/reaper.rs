//! Killing processes that outlived their container, or the server that started it.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    process::{Pid, PidfdFlags, Signal, getpgid, kill_process_group, pidfd_open, pidfd_send_signal},
};

use super::{ARGUMENTS_VARIABLE, Stat};

/// How long killed processes may take to end before that is logged.
const LONGEST_DEATH: Duration = Duration::from_secs(10);

/// Kills the containers whose private folders are `folder` or in it, and all that they started; returns when they have
/// ended; blocking. They are found by a variable in their environment that names the folder: it never matches other
/// processes, and it finds those whose process ids were not recorded before the server was killed.
///
/// Without `/proc`, nothing is found. Such a container ends by itself, because no server knows its token.
pub fn kill_orphans(folder: &Path) {
    let marker = marker(folder);
    kill_all(|pid| is_marked(pid, &marker));
}

/// Kills the processes of one container in the same way: the one whose private folder is that of its task in `folder`.
/// A forked container has the environment of its fork server, but is in the session that it leads itself.
pub fn kill_container(folder: &Path, task_id: &str, leader: Option<Pid>) {
    let (own, any) = (marker(&folder.join(task_id)), marker(folder));
    let session = leader.map(|leader| leader.as_raw_nonzero().get());
    kill_all(|pid| is_marked(pid, &own) || (session.is_some() && session_of(pid) == session && is_marked(pid, &any)));
}

fn marker(folder: &Path) -> Vec<u8> {
    let mut marker = format!("{ARGUMENTS_VARIABLE}=").into_bytes();
    marker.extend(folder.as_os_str().as_bytes());
    marker.push(b'/');
    marker
}

/// Kills until nothing is found any more: a killed process may have started another one just before.
fn kill_all(is_target: impl Fn(Pid) -> bool) {
    let until = Instant::now() + LONGEST_DEATH;
    while kill_found(&is_target, until) > 0 && Instant::now() < until {}
}

/// Kills all matching processes; returns their number.
fn kill_found(is_target: impl Fn(Pid) -> bool, until: Instant) -> usize {
    let numbers =
        fs::read_dir("/proc").into_iter().flatten().filter_map(|item| item.ok()?.file_name().to_str()?.parse().ok());
    let mut dying = Vec::new();
    for pid in numbers.filter_map(Pid::from_raw) {
        // The handle is opened before the check, so that the process id cannot be reused in between.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if is_target(pid) {
            kill(pid, &process);
            dying.push((pid, process));
        }
    }
    let count = dying.len();
    for (pid, process) in dying {
        if has_ended(&process, until.saturating_duration_since(Instant::now())) {
            tracing::debug!(pid = pid.as_raw_nonzero(), "killed an orphaned process");
        } else {
            tracing::error!(pid = pid.as_raw_nonzero(), "an orphaned process does not end");
        }
    }
    count
}

/// Kills a process and its group, which may have processes that unset the variable.
fn kill(pid: Pid, process: &OwnedFd) {
    // Each container starts in its own group, so the groups of its processes are its own, too.
    let group = getpgid(Some(pid)).and_then(|group| kill_process_group(group, Signal::KILL));
    for outcome in [group, pidfd_send_signal(process, Signal::KILL)] {
        match outcome {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::error!(%error, pid = pid.as_raw_nonzero(), "a container could not be killed"),
        }
    }
}

fn is_marked(pid: Pid, marker: &[u8]) -> bool {
    // Other users' processes cannot be read, and are not ours.
    let Ok(environment) = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())) else { return false };
    environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(marker))
}

fn session_of(pid: Pid) -> Option<i32> {
    let process = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    Stat::read(&process).map(|stat| stat.session)
}

/// Waits for the end of a process.
fn has_ended(process: &OwnedFd, limit: Duration) -> bool {
    // Its handle becomes readable when a process ends.
    let mut handles = [PollFd::new(process, PollFlags::IN)];
    let limit = Timespec::try_from(limit).ok();
    poll(&mut handles, limit.as_ref()).is_ok_and(|ready| ready > 0)
}
