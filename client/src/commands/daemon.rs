//! `daemon`: start, stop, status and token of `airflowd`.

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
    /// Where it serves beside the socket, to whoever has the token.
    addresses: Vec<String>,
    log: String,
    data: String,
}

pub async fn run(command: cli::Daemon, printer: &Printer) -> Outcome {
    if let cli::Daemon::Token { rotate } = command {
        return token(rotate, printer);
    }
    let home = Home::from_environment().map_err(|error| Failure::unexpected("finding the daemon", error))?;
    let daemon = Daemon::at(&home)?;
    let running = daemon.version().await.ok();
    match (command, running) {
        (cli::Daemon::Start, None) => start::start(&home, &daemon, printer).await?,
        (cli::Daemon::Stop, Some(version)) => start::stop(version.pid).await?,
        (cli::Daemon::Start, Some(_)) | (cli::Daemon::Stop, None) => {}
        (cli::Daemon::Status | cli::Daemon::Token { .. }, _) => {}
    }
    let version = daemon.version().await.ok();
    let running = version.is_some();
    // What a killed daemon left behind is not true any more.
    let addresses = if running { std::fs::read_to_string(home.addresses()).unwrap_or_default() } else { String::new() };
    let status = Status {
        running,
        pid: version.as_ref().map(|version| version.pid),
        version: version.map(|version| version.version),
        socket: home.socket().display().to_string(),
        addresses: addresses.lines().map(|address| format!("http://{address}")).collect(),
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
    let addresses: String = status.addresses.iter().map(|address| format!("\naddress {address}")).collect();
    format!("{state}\nsocket  {}{addresses}\nlog     {}\ndata    {}", status.socket, status.log, status.data)
}

/// The daemon's own program has the token: whether one runs or not, it looks after the file.
fn token(rotate: bool, printer: &Printer) -> Outcome {
    let token = start::token(rotate)?;
    printer.result(&serde_json::json!({ "token": token }), |_| token.clone());
    Ok(ExitStatus::Success)
}
