//! `daemon`: start, stop and status of `airflowd`.

use airflow_serverless_api::home::Home;
use serde::Serialize;

use super::Outcome;
use crate::{
    cli,
    daemon::Daemon,
    failure::{ExitStatus, Failure},
    printer::Printer,
    start,
};

/// What `daemon status` tells.
#[derive(Serialize)]
struct Status {
    running: bool,
    pid: Option<u32>,
    version: Option<String>,
    socket: String,
    log: String,
    data: String,
}

pub async fn run(command: cli::Daemon, printer: &Printer) -> Outcome {
    let home = Home::from_environment().map_err(|error| Failure::unexpected("finding the daemon", error))?;
    let daemon = Daemon::at(&home)?;
    let running = daemon.version().await.ok();
    match (command, running) {
        (cli::Daemon::Start, None) => start::start(&home, &daemon, printer).await?,
        (cli::Daemon::Stop, Some(version)) => start::stop(version.pid).await?,
        (cli::Daemon::Start, Some(_)) | (cli::Daemon::Stop, None) | (cli::Daemon::Status, _) => {}
    }
    let version = daemon.version().await.ok();
    let status = Status {
        running: version.is_some(),
        pid: version.as_ref().map(|version| version.pid),
        version: version.map(|version| version.version),
        socket: home.socket().display().to_string(),
        log: home.log().display().to_string(),
        data: home.data.display().to_string(),
    };
    printer.result(&status, describe);
    Ok(ExitStatus::Success)
}

fn describe(status: &Status) -> String {
    let state = match (&status.version, status.pid) {
        (Some(version), Some(pid)) => format!("airflowd {version} runs (pid {pid})"),
        _ => "airflowd does not run".to_owned(),
    };
    format!("{state}\nsocket  {}\nlog     {}\ndata    {}", status.socket, status.log, status.data)
}
