//! The description of a process in `/proc`.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal};

/// Whether a process has a handler for a signal; true if the system does not report it.
pub fn handles_signal(pid: Pid, signal: Signal) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())) else { return true };
    let caught = text.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
    // The first signal has the number 1.
    caught.is_none_or(|caught| caught >> (signal.as_raw() - 1) & 1 == 1)
}

/// The parent and the session of a process. 0 stands for one in another namespace.
pub struct Stat {
    pub parent: i32,
    pub session: i32,
}

impl Stat {
    /// Reads it; `None` if the process has ended.
    pub fn read(process: &Path) -> Option<Self> {
        let text = fs::read_to_string(process.join("stat")).ok()?;
        // The command's name is in brackets, and may hold anything; the state, parent, group and session follow it.
        let (_, fields) = text.rsplit_once(')')?;
        let mut numbers = fields.split_whitespace().skip(1).map(str::parse);
        let (parent, _group, session) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self { parent, session })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_handlers_are_detected() {
        let own = rustix::process::getpid();
        // The runtime of Rust has one for overflows of the stack, and none for this.
        assert_eq!((handles_signal(own, Signal::SEGV), handles_signal(own, Signal::WINCH)), (true, false));
    }

    #[test]
    fn process_stat_is_parsed() {
        let own = Stat::read(Path::new("/proc/self")).unwrap();
        assert_eq!(own.parent, rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get()));
        // A kernel's thread has no session, and is not to be seen everywhere.
        let kernel = Path::new("/proc/2");
        assert_eq!(Stat::read(kernel).is_some(), kernel.exists());
    }
}
