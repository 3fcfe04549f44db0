//! A process of `airflowd` that a test manages itself, without the CLI.

use std::{
    os::unix::net::UnixStream,
    process::{Child, ExitStatus},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::{Installation, eventually};

pub struct Daemon(pub Child);

impl Daemon {
    pub fn start(it: &Installation, variables: &[(&str, &str)]) -> Self {
        let log = it.home().join("state/airflowd.log");
        Self(it.spawn_daemon(&["--log-file", log.to_str().expect("text")], variables))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("a process id")).expect("a process id")
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a signal");
    }

    /// Suspends it like `kill -STOP`, and waits until none of its threads runs any more.
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
        let (_, status) = waitpid(Some(self.pid()), WaitOptions::UNTRACED).expect("its status").expect("a change");
        assert!(status.stopped(), "{status:?}");
    }

    /// Waits until it has ended.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the end of the daemon", || self.0.try_wait().expect("its end"))
    }

    /// Waits until it accepts connections.
    pub fn serves(&mut self, it: &Installation) {
        eventually("a daemon that serves", || {
            assert!(self.0.try_wait().expect("its state").is_none(), "it ended:\n{}", it.log());
            UnixStream::connect(it.socket()).ok()
        });
    }

    /// Kills it, as a crash would.
    pub fn crash(&mut self) {
        self.signal(Signal::KILL);
        self.ended();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
