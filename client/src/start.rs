//! The daemon's process: starts it in the background, directly or through its service manager, stops it, and runs it
//! for the token.

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

use crate::{
    daemon::Daemon,
    error::CliError,
    home_lock::{self, Holder},
    printer::Printer,
    service::Service,
};

const START_LIMIT: Duration = Duration::from_secs(30);
/// Longer than the daemon's own limit for its shutdown.
const STOP_LIMIT: Duration = Duration::from_secs(65);
const POLL: Duration = Duration::from_millis(5);
/// Pause before the next attempt to start a daemon while another one stops.
const RETRY: Duration = Duration::from_millis(250);
const SHOWN_LINES: usize = 5;

/// Starts the daemon and waits until it serves.
pub async fn start(home: &Home, printer: &Printer) -> Result<(), CliError> {
    printer.note("starting airflowd");
    wait_until_stopped(home).await?;
    match Service::of(home) {
        Some(service) => {
            service.start()?;
            wait_until_ready(home).await.ok_or_else(|| not_ready(home))
        }
        None => start_process(home).await,
    }
}

/// Waits for the end of a daemon that accepts no more connections.
async fn wait_until_stopped(home: &Home) -> Result<(), CliError> {
    let deadline = Instant::now() + STOP_LIMIT;
    while let Some(holder) = Holder::of(home).filter(|_| !home_lock::listens(home)) {
        if Instant::now() > deadline {
            return Err(still_runs(holder.pid));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn start_process(home: &Home) -> Result<(), CliError> {
    let binary = binary();
    let mut child = spawn(&binary, home)?;
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline {
        if serves(home).await {
            return Ok(());
        }
        match child.try_wait().map_err(|error| CliError::unexpected("watching airflowd", error))? {
            // Another daemon holds this home: it is starting up or shutting down.
            Some(status) if status.code() == Some(ALREADY_RUNNING.into()) => {
                tokio::time::sleep(RETRY).await;
                if !serves(home).await {
                    child = spawn(&binary, home)?;
                }
            }
            Some(status) => return Err(not_started(home, &format!("airflowd exited with {status}"))),
            None => tokio::time::sleep(POLL).await,
        }
    }
    Err(not_ready(home))
}

/// Waits until the daemon serves; `None` at the time limit.
pub async fn wait_until_ready(home: &Home) -> Option<()> {
    let deadline = Instant::now() + START_LIMIT;
    while !serves(home).await {
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
    Some(())
}

/// Whether the daemon serves. Resolves the socket each time, as its path is not known in advance.
async fn serves(home: &Home) -> bool {
    if !home_lock::listens(home) {
        return false;
    }
    match Daemon::at(home) {
        Ok(daemon) => daemon.version().await.is_ok(),
        Err(_) => false,
    }
}

/// Stops the daemon, through the service manager if it is installed there, and waits until it is gone.
pub async fn stop(home: &Home) -> Result<bool, CliError> {
    // A daemon of an earlier version has its lock elsewhere, but reports its process id.
    let earlier = match Holder::of(home) {
        Some(_) => None,
        None => Daemon::at(home)?.version().await.ok().map(|version| version.pid),
    };
    if let Some(service) = Service::of(&home_lock::resolve_running_home(home)) {
        service.stop()?;
    }
    match (Holder::of(home), earlier) {
        (Some(holder), _) => stop_holder(home, &holder).await?,
        (None, Some(pid)) => stop_process(pid).await?,
        (None, None) => return Ok(false),
    }
    Ok(true)
}

async fn stop_holder(home: &Home, holder: &Holder) -> Result<(), CliError> {
    let Some(pid) = holder.pid else {
        let message = "airflowd is running in another container and cannot be stopped from here".to_owned();
        return Err(CliError::Unexpected {
            message,
            hint: Some("run `airflow-serverless daemon stop` in that container".to_owned()),
        });
    };
    let deadline = Instant::now() + STOP_LIMIT;
    let mut told = false;
    // The lock is released shortly before the process ends, along with all that the kernel ends with it.
    while is_alive(pid) {
        // A daemon that accepts no connections was signaled already; a second signal would make it abort its work.
        if !told && home_lock::listens(home) {
            terminate(pid)?;
            told = true;
        }
        if Instant::now() > deadline {
            return Err(still_runs(Some(pid)));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn stop_process(pid: u32) -> Result<(), CliError> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Err(CliError::Unexpected { message: format!("{pid} is not a process id"), hint: None });
    };
    terminate(pid)?;
    let deadline = Instant::now() + STOP_LIMIT;
    while is_alive(pid) {
        if Instant::now() > deadline {
            return Err(still_runs(Some(pid)));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Whether a process exists and is not a zombie. (In a container there may be no process that reaps zombies.)
fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which may contain any characters.
    let is_zombie = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
    test_kill_process(pid).is_ok() && !is_zombie
}

/// Sends SIGTERM, and SIGCONT in case the process is suspended, as systemd does.
fn terminate(pid: Pid) -> Result<(), CliError> {
    match kill_process(pid, Signal::TERM).and_then(|()| kill_process(pid, Signal::CONT)) {
        // It has just ended, or the service manager has stopped it.
        Err(rustix::io::Errno::SRCH) => Ok(()),
        outcome => outcome.map_err(|error| CliError::unexpected(&format!("stopping airflowd (pid {pid})"), error)),
    }
}

fn still_runs(pid: Option<Pid>) -> CliError {
    let pid = pid.map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
    let hint = format!("`airflow-serverless daemon logs` shows what it waits for; `kill -KILL {pid}` kills it");
    let message = format!("airflowd (pid {pid}) is still running after {} s", STOP_LIMIT.as_secs());
    CliError::Unexpected { message, hint: Some(hint) }
}

/// Returns the token for requests to a port of the daemon; rotates it if requested.
pub fn token(rotate: bool) -> Result<String, CliError> {
    let binary = binary();
    let option = if rotate { "--rotate-token" } else { "--print-token" };
    let output = Command::new(&binary).arg(option).stdin(Stdio::null()).output();
    let output = output.map_err(|error| CliError::unexpected(&format!("starting {}", binary.display()), error))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        let message = message.trim().trim_start_matches("error: ").to_owned();
        return Err(CliError::Unexpected { message, hint: None });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the daemon's program: the chosen one, the one next to this program, or the one in the PATH.
pub fn binary() -> PathBuf {
    if let Some(chosen) = std::env::var_os(variables::DAEMON).filter(|value| !value.is_empty()) {
        return chosen.into();
    }
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("airflowd"));
    beside.filter(|path| path.exists()).unwrap_or_else(|| "airflowd".into())
}

fn spawn(binary: &Path, home: &Home) -> Result<Child, CliError> {
    let failed = |error| CliError::unexpected(&format!("opening {}", home.output().display()), error);
    let output = open_output(home).map_err(failed)?;
    let errors = output.try_clone().map_err(failed)?;
    Command::new(binary)
        .arg("--log-file")
        .arg(home.log())
        // Detached from the terminal (Ctrl-C, hangup), and keeps no folder in use.
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|error| CliError::unexpected(&format!("starting {}", binary.display()), error))
}

/// Opens the file for the daemon's output besides its log. It is short, and truncated at each start.
fn open_output(home: &Home) -> std::io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(&home.state)?;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(home.output())?;
    file.set_len(0)?;
    Ok(file)
}

fn not_ready(home: &Home) -> CliError {
    not_started(home, &format!("airflowd was not ready within {} s", START_LIMIT.as_secs()))
}

fn not_started(home: &Home, message: &str) -> CliError {
    let output = std::fs::read_to_string(home.output()).unwrap_or_default();
    let lines: Vec<&str> = output.lines().collect();
    let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
    CliError::Unexpected {
        message: format!("{message}\n{last}").trim_end().to_owned(),
        hint: Some("`airflow-serverless daemon logs` shows its log".to_owned()),
    }
}
