//! The processes of an installation: the CLI in the background, the daemon, containers; and the end of them all.

use std::{
    fs,
    process::{Child, Stdio},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::{Done, Installation, eventually};

impl Installation {
    /// Starts the CLI and leaves it to itself; for what a test interrupts or does many times at once.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.plain("airflow-serverless");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the CLI starts")
    }

    /// Starts the daemon as a service manager would; whoever calls looks after it.
    pub fn spawn_daemon(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
        let mut command = self.plain("airflowd");
        command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().expect("the daemon starts")
    }

    /// A program of this workspace as a command that can be left to itself.
    fn plain(&self, program: &str) -> std::process::Command {
        let template = self.command(program);
        let mut command = std::process::Command::new(template.get_program());
        for (name, value) in template.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Runs the same command several times at once; gives how each ended.
    pub fn at_once(&self, commands: &[Vec<&str>]) -> Vec<Done> {
        let children: Vec<_> = commands.iter().map(|arguments| self.spawn(arguments)).collect();
        let ended = children.into_iter().map(|child| child.wait_with_output().expect("the CLI ends"));
        ended.map(Done::from).collect()
    }

    /// The daemon's process id, or `None` if it does not run.
    pub fn pid(&self) -> Option<Pid> {
        let status = self.cli(&["daemon", "status", "--json"]).json();
        Pid::from_raw(i32::try_from(status["pid"].as_i64()?).ok()?)
    }

    /// The process that the lock file names.
    fn lock_holder(&self) -> Option<Pid> {
        let pid = fs::read_to_string(self.home().join("data/airflowd.pid")).ok()?;
        Pid::from_raw(pid.lines().next()?.parse().ok()?)
    }

    /// Ends the daemon as a crash would, and waits until it is gone.
    pub fn kill(&self) {
        let pid = self.pid().expect("a daemon that runs");
        kill_process(pid, Signal::KILL).expect("killed");
        eventually("the end of the daemon", || test_kill_process(pid).is_err().then_some(()));
    }

    /// Processes of Local Modal's containers, and what they started.
    pub fn containers(&self) -> Vec<u32> {
        let home = self.home().canonicalize().unwrap_or_else(|_| self.home());
        Self::processes_with(&format!("MODAL_CONTAINER_ARGUMENTS_PATH={}/", home.display()))
    }

    /// All processes that the daemon or a command of this installation has started, themselves among them.
    pub fn descendants(&self) -> Vec<u32> {
        Self::processes_with(&format!("AIRFLOW_SERVERLESS_HOME={}", self.home().display()))
    }

    /// Those with a variable that begins like this in their environment.
    fn processes_with(marker: &str) -> Vec<u32> {
        let is_ours = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(marker.as_bytes()))
        };
        let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
    }
}

impl Drop for Installation {
    /// Stops the daemon, by force if need be, so that the end of a test is the end of its processes.
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        if failing {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        let pid = self.lock_holder();
        let stopped = self.command("airflow-serverless").args(["daemon", "stop"]).output();
        let stopped = stopped.is_ok_and(|output| output.status.success());
        let left = self.containers();
        if let Some(pid) = pid.filter(|pid| !stopped && test_kill_process(*pid).is_ok()) {
            // It may end by itself just now; what matters is that it is gone.
            let _ = kill_process(pid, Signal::KILL);
        }
        for pid in left.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if !failing {
            assert!(stopped, "the daemon did not stop\n{}", self.log());
            assert!(left.is_empty(), "containers outlived the daemon: {left:?}");
        }
    }
}
