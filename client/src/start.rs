//! The daemon's program: started in the background and stopped, or asked for its token.

use std::{
    fs::{File, OpenOptions},
    os::unix::{fs::DirBuilderExt, fs::OpenOptionsExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use airflow_serverless_api::{
    home::{ALREADY_RUNNING, Home},
    variables,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::Instant;

use crate::{daemon::Daemon, failure::Failure, printer::Printer};

const START_LIMIT: Duration = Duration::from_secs(30);
/// Longer than the daemon's own grace for requests and containers.
const STOP_LIMIT: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(10);
const SHOWN_LOG_LINES: usize = 5;

/// Starts the daemon and waits until it serves.
pub async fn start(home: &Home, daemon: &Daemon, printer: &Printer) -> Result<(), Failure> {
    let binary = binary();
    printer.note("starting airflowd");
    let mut child = spawn(&binary, home)?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if daemon.version().await.is_ok() {
            return Ok(());
        }
        let ended = child.try_wait().map_err(|error| Failure::unexpected("watching airflowd", error))?;
        // One that lost a race against another one need not be the last word: that one will serve in a moment.
        if let Some(status) = ended.filter(|status| status.code() != Some(ALREADY_RUNNING.into())) {
            return Err(not_started(home, &format!("airflowd ended with {status}")));
        }
        if Instant::now() > deadline {
            return Err(not_started(home, &format!("airflowd was not ready within {} s", START_LIMIT.as_secs())));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Asks the daemon to stop and waits until it is gone.
pub async fn stop(pid: u32) -> Result<(), Failure> {
    let gone = |error: std::io::Error| Failure::unexpected("stopping airflowd", error);
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Err(Failure::Unexpected { message: format!("{pid} is no process id"), hint: None });
    };
    kill_process(pid, Signal::TERM).map_err(|error| gone(error.into()))?;
    let deadline = Instant::now() + STOP_LIMIT;
    while test_kill_process(pid).is_ok() {
        if Instant::now() > deadline {
            let message =
                format!("airflowd (pid {}) still runs after {} s", pid.as_raw_nonzero(), STOP_LIMIT.as_secs());
            return Err(Failure::Unexpected { message, hint: Some("its log tells what it waits for".to_owned()) });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// The token that requests to a port of the daemon need; a new one if it is to be rotated.
pub fn token(rotate: bool) -> Result<String, Failure> {
    let binary = binary();
    let option = if rotate { "--rotate-token" } else { "--print-token" };
    let output = Command::new(&binary).arg(option).stdin(Stdio::null()).output();
    let output = output.map_err(|error| Failure::unexpected(&format!("starting {}", binary.display()), error))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        let message = message.trim().trim_start_matches("error: ").to_owned();
        return Err(Failure::Unexpected { message, hint: None });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The chosen binary, or the one beside this program, or whatever the PATH has.
fn binary() -> PathBuf {
    if let Some(chosen) = std::env::var_os(variables::DAEMON) {
        return chosen.into();
    }
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("airflowd"));
    beside.filter(|path| path.exists()).unwrap_or_else(|| "airflowd".into())
}

fn spawn(binary: &PathBuf, home: &Home) -> Result<Child, Failure> {
    let log = open_log(home).map_err(|error| Failure::unexpected("opening the daemon's log", error))?;
    let errors = log.try_clone().map_err(|error| Failure::unexpected("opening the daemon's log", error))?;
    Command::new(binary)
        // Neither Ctrl-C nor the end of this terminal reaches it, and it keeps no folder busy.
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|error| Failure::unexpected(&format!("starting {}", binary.display()), error))
}

fn open_log(home: &Home) -> std::io::Result<File> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&home.state)?;
    OpenOptions::new().create(true).append(true).mode(0o600).open(home.log())
}

fn not_started(home: &Home, message: &str) -> Failure {
    let log = std::fs::read_to_string(home.log()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..].join("\n");
    Failure::Unexpected {
        message: format!("{message}\n{last}"),
        hint: Some(format!("its log is {}", home.log().display())),
    }
}
