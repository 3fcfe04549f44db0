//! The processes of an installation: the CLI in the background, the daemon, containers; and their cleanup.

use std::{
    fs,
    process::{Child, Stdio},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::{Done, Installation, eventually};

impl Installation {
    /// Starts the CLI in the background, for commands that a test interrupts or runs concurrently.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.plain("airflow-serverless");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the CLI starts")
    }

    /// Starts the daemon like a service manager; the caller manages the process.
    pub fn spawn_daemon(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
        let mut command = self.plain("airflowd");
        command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().expect("the daemon starts")
    }

    /// Returns a command for a program of this workspace that can run in the background.
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

    /// Runs several commands concurrently; returns the result of each.
    pub fn at_once(&self, commands: &[Vec<&str>]) -> Vec<Done> {
        let children: Vec<_> = commands.iter().map(|arguments| self.spawn(arguments)).collect();
        let ended = children.into_iter().map(|child| child.wait_with_output().expect("the CLI ends"));
        ended.map(Done::from).collect()
    }

    /// Returns the daemon's process id, or `None` if it is not running.
    pub fn pid(&self) -> Option<Pid> {
        let status = self.cli(&["daemon", "status", "--json"]).json();
        Pid::from_raw(i32::try_from(status["pid"].as_i64()?).ok()?)
    }

    /// Returns the process named in the lock file.
    fn lock_holder(&self) -> Option<Pid> {
        let pid = fs::read_to_string(self.home().join("data/airflowd.pid")).ok()?;
        Pid::from_raw(pid.lines().next()?.parse().ok()?)
    }

    /// Kills the daemon, as a crash would, and waits until it is gone.
    pub fn kill(&self) {
        let pid = self.pid().expect("a daemon that runs");
        kill_process(pid, Signal::KILL).expect("killed");
        eventually("the end of the daemon", || test_kill_process(pid).is_err().then_some(()));
    }

    /// Returns the processes of Local Modal's containers, including their children.
    pub fn containers(&self) -> Vec<u32> {
        let home = self.home().canonicalize().unwrap_or_else(|_| self.home());
        Self::processes_with(&format!("MODAL_CONTAINER_ARGUMENTS_PATH={}/", home.display()))
    }

    /// Returns all processes started by the daemon or a command of this installation, including themselves.
    pub fn descendants(&self) -> Vec<u32> {
        Self::processes_with(&format!("AIRFLOW_SERVERLESS_HOME={}", self.home().display()))
    }

    /// Returns the processes with an environment variable that starts like this.
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
    /// Stops the daemon, by force if necessary, so that no process outlives the test.
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
            // It may be ending just now; what matters is that it is gone.
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
