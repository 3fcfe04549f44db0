//! The daemon's program: started in the background, by itself or through the service manager that looks after it, stopped,
//! or asked for its token.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use airflow_serverless_api::{
    home::{ALREADY_RUNNING, Home},
    variables,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::Instant;

use crate::{daemon::Daemon, failure::Failure, printer::Printer, service::Service};

const START_LIMIT: Duration = Duration::from_secs(30);
/// Longer than the daemon's own limit for its stop.
const STOP_LIMIT: Duration = Duration::from_secs(65);
const POLL: Duration = Duration::from_millis(5);
/// Pause before another try to start a daemon where one still stops.
const RETRY: Duration = Duration::from_millis(250);
const SHOWN_LINES: usize = 5;

/// Starts the daemon and waits until it serves.
pub async fn start(home: &Home, daemon: &Daemon, printer: &Printer) -> Result<(), Failure> {
    printer.note("starting airflowd");
    match Service::of(home) {
        Some(service) => {
            service.start()?;
            until_it_serves(daemon).await.ok_or_else(|| not_ready(home))
        }
        None => start_process(home, daemon).await,
    }
}

async fn start_process(home: &Home, daemon: &Daemon) -> Result<(), Failure> {
    let binary = binary();
    let mut child = spawn(&binary, home)?;
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline {
        if daemon.version().await.is_ok() {
            return Ok(());
        }
        match child.try_wait().map_err(|error| Failure::unexpected("watching airflowd", error))? {
            // Another daemon has this home: it will serve in a moment, or it is about to end.
            Some(status) if status.code() == Some(ALREADY_RUNNING.into()) => {
                tokio::time::sleep(RETRY).await;
                if daemon.version().await.is_err() {
                    child = spawn(&binary, home)?;
                }
            }
            Some(status) => return Err(not_started(home, &format!("airflowd ended with {status}"))),
            None => tokio::time::sleep(POLL).await,
        }
    }
    Err(not_ready(home))
}

/// `None` if it does not within the limit.
pub async fn until_it_serves(daemon: &Daemon) -> Option<()> {
    let deadline = Instant::now() + START_LIMIT;
    while daemon.version().await.is_err() {
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
    Some(())
}

/// Asks the daemon to stop, by way of the service manager if that looks after it, and waits until it is gone.
pub async fn stop(home: &Home, pid: Option<u32>) -> Result<(), Failure> {
    if let Some(service) = Service::of(home) {
        service.stop()?;
    }
    match pid {
        Some(pid) => stop_process(pid).await,
        None => Ok(()),
    }
}

async fn stop_process(pid: u32) -> Result<(), Failure> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Err(Failure::Unexpected { message: format!("{pid} is no process id"), hint: None });
    };
    match kill_process(pid, Signal::TERM) {
        // The service manager has stopped it.
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        outcome => outcome.map_err(|error| Failure::unexpected("stopping airflowd", error))?,
    }
    let deadline = Instant::now() + STOP_LIMIT;
    while test_kill_process(pid).is_ok() {
        if Instant::now() > deadline {
            let message =
                format!("airflowd (pid {}) still runs after {} s", pid.as_raw_nonzero(), STOP_LIMIT.as_secs());
            let hint = "its log tells what it waits for: `airflow-serverless daemon logs`";
            return Err(Failure::Unexpected { message, hint: Some(hint.to_owned()) });
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
pub fn binary() -> PathBuf {
    if let Some(chosen) = std::env::var_os(variables::DAEMON).filter(|value| !value.is_empty()) {
        return chosen.into();
    }
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("airflowd"));
    beside.filter(|path| path.exists()).unwrap_or_else(|| "airflowd".into())
}

fn spawn(binary: &Path, home: &Home) -> Result<Child, Failure> {
    let output = open_output(home).map_err(|error| Failure::unexpected("opening the daemon's output", error))?;
    let errors = output.try_clone().map_err(|error| Failure::unexpected("opening the daemon's output", error))?;
    Command::new(binary)
        .arg("--log-file")
        .arg(home.log())
        // Neither Ctrl-C nor the end of this terminal reaches it, and it keeps no folder busy.
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|error| Failure::unexpected(&format!("starting {}", binary.display()), error))
}

/// What the daemon prints beside its log is little, and of interest only until the next start.
fn open_output(home: &Home) -> std::io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(&home.state)?;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(home.output())?;
    file.set_len(0)?;
    Ok(file)
}

fn not_ready(home: &Home) -> Failure {
    not_started(home, &format!("airflowd was not ready within {} s", START_LIMIT.as_secs()))
}

fn not_started(home: &Home, message: &str) -> Failure {
    let output = std::fs::read_to_string(home.output()).unwrap_or_default();
    let lines: Vec<&str> = output.lines().collect();
    let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
    Failure::Unexpected {
        message: format!("{message}\n{last}").trim_end().to_owned(),
        hint: Some("`airflow-serverless daemon logs` shows its log".to_owned()),
    }
}
