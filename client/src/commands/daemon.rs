//! `daemon`: start, stop, status, token and log of `airflowd`, and its installation as a service.

use std::path::PathBuf;

use airflow_serverless_api::home::Home;
use serde::Serialize;

use super::Outcome;
use crate::{
    cli::{self, Logs},
    daemon_status::DaemonStatus,
    error::{CliError, ExitStatus},
    home_lock, logs,
    printer::Printer,
    service::{Plan, Service},
    start,
};

/// The output of `daemon status`.
#[derive(Serialize)]
struct Status {
    /// Whether a daemon holds the home.
    running: bool,
    /// `serves`, `stops`, `silent` (no response) or `absent`.
    state: &'static str,
    /// What to do if it runs but does not serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip)]
    sentence: String,
    pid: Option<u32>,
    version: Option<String>,
    /// The service manager of the daemon.
    service: Option<&'static str>,
    socket: String,
    /// Addresses on which it serves in addition to the socket, with token authentication.
    addresses: Vec<String>,
    log: String,
    data: String,
}

/// The output of `daemon install` and `daemon uninstall`.
#[derive(Serialize)]
struct Change {
    service: &'static str,
    files: Vec<PathBuf>,
    #[serde(skip)]
    done: &'static str,
}

pub async fn run(command: cli::Daemon, printer: &Printer) -> Outcome {
    if let cli::Daemon::Token { rotate } = command {
        return token(rotate, printer);
    }
    let home = Home::from_environment().map_err(|error| CliError::unexpected("finding the daemon", error))?;
    match command {
        cli::Daemon::Logs(arguments) => show_logs(&home, &arguments, printer).await,
        cli::Daemon::Install => install(&home, printer).await,
        cli::Daemon::Uninstall => uninstall(&home, printer),
        command => control(command, &home, printer).await,
    }
}

async fn control(command: cli::Daemon, home: &Home, printer: &Printer) -> Outcome {
    match command {
        cli::Daemon::Start => match DaemonStatus::of(home).await? {
            DaemonStatus::Running(_) => {}
            silent @ DaemonStatus::Unresponsive { .. } => {
                return Err(CliError::Unexpected { message: silent.describe(), hint: silent.hint() });
            }
            DaemonStatus::Absent | DaemonStatus::Stopping { .. } => start::start(home, printer).await?,
        },
        cli::Daemon::Stop => {
            let was_there = start::stop(home).await?;
            let absent = Status {
                sentence: if was_there { "airflowd stopped" } else { "airflowd was not running" }.to_owned(),
                ..status(home, &DaemonStatus::Absent)
            };
            printer.result(&absent, |status| status.sentence.clone());
            return Ok(ExitStatus::Success);
        }
        cli::Daemon::Restart => {
            // Whether one was running or not, one is started next.
            let _ = start::stop(home).await?;
            start::start(home, printer).await?;
        }
        _ => {}
    }
    let found = DaemonStatus::of(home).await?;
    printer.result(&status(home, &found), describe);
    Ok(if matches!(found, DaemonStatus::Unresponsive { .. }) { ExitStatus::Failure } else { ExitStatus::Success })
}

fn status(home: &Home, status: &DaemonStatus) -> Status {
    let home = home_lock::resolve_running_home(home);
    let serves = matches!(status, DaemonStatus::Running(_));
    let running = !matches!(status, DaemonStatus::Absent);
    // A killed daemon leaves outdated addresses behind.
    let addresses = if serves { std::fs::read_to_string(home.addresses()).unwrap_or_default() } else { String::new() };
    Status {
        running,
        state: status.word(),
        hint: status.hint().filter(|_| running),
        sentence: status.describe(),
        pid: status.pid(),
        version: if let DaemonStatus::Running(version) = status { Some(version.version.clone()) } else { None },
        service: Service::of(&home).map(|service| service.name()),
        socket: home.socket().display().to_string(),
        addresses: addresses.lines().map(|address| format!("http://{address}")).collect(),
        log: home.log().display().to_string(),
        data: home.data.display().to_string(),
    }
}

fn describe(status: &Status) -> String {
    let state = &status.sentence;
    let hint = status.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
    let log = match status.service {
        Some("systemd") => "the journal",
        _ => &status.log,
    };
    let service = status.service.map(|service| format!("\nservice {service}")).unwrap_or_default();
    let addresses: String = status.addresses.iter().map(|address| format!("\naddress {address}")).collect();
    format!("{state}{hint}{service}\nsocket  {}{addresses}\nlog     {log}\ndata    {}", status.socket, status.data)
}

/// Runs `airflowd` for the token: it manages the file even if no daemon runs.
fn token(rotate: bool, printer: &Printer) -> Outcome {
    let token = start::token(rotate)?;
    printer.result(&serde_json::json!({ "token": token }), |_| token.clone());
    Ok(ExitStatus::Success)
}

async fn show_logs(home: &Home, arguments: &Logs, printer: &Printer) -> Outcome {
    let journal =
        Service::of(home).and_then(|service| service.logs(arguments.lines, arguments.follow, printer.is_json()));
    match journal {
        Some(mut command) => {
            let shown = command.status().map_err(|error| CliError::unexpected("asking the journal", error))?;
            Ok(if shown.success() { ExitStatus::Success } else { ExitStatus::Failure })
        }
        None => logs::show(&home.log(), arguments, printer).await,
    }
}

async fn install(home: &Home, printer: &Printer) -> Outcome {
    Service::usable()?;
    let binary = found(&start::binary())?;
    // A daemon that was started in another way holds the lock.
    start::stop(home).await?;
    let (service, installed) = Service::install(&Plan::new(home, &binary))?;
    if let Some(note) = installed.note {
        printer.warning(note);
    }
    if start::wait_until_ready(home).await.is_none() {
        let message = format!("{} started airflowd, but it does not respond", service.name());
        let hint = Some("`airflow-serverless daemon logs` shows why".to_owned());
        return Err(CliError::Unexpected { message, hint });
    }
    let done = "airflowd is managed by";
    printer.result(&Change { service: service.name(), files: installed.files, done }, describe_change);
    Ok(ExitStatus::Success)
}

fn uninstall(home: &Home, printer: &Printer) -> Outcome {
    let Some(service) = Service::of(home) else {
        let hint = "`airflow-serverless daemon install` installs the service; `daemon stop` stops a daemon that is not a service";
        return Err(CliError::input("the daemon of this home is not installed as a service", Vec::new(), Some(hint)));
    };
    let files = service.uninstall()?;
    let done = "airflowd stopped and is no longer managed by";
    printer.result(&Change { service: service.name(), files, done }, describe_change);
    Ok(ExitStatus::Success)
}

fn describe_change(change: &Change) -> String {
    let files: String = change.files.iter().map(|path| format!("\n  {}", path.display())).collect();
    format!("{} {}{files}", change.done, change.service)
}

/// Returns the absolute path of the program, as service managers require it.
fn found(binary: &PathBuf) -> Result<PathBuf, CliError> {
    let whole = if binary.components().count() > 1 {
        std::path::absolute(binary).ok()
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).map(|folder| folder.join(binary)).find(|path| path.is_file())
    };
    whole.filter(|path| path.is_file()).ok_or_else(|| {
        let hint = "put airflowd beside this program, or set AIRFLOW_SERVERLESS_DAEMON to it";
        CliError::input(format!("there is no {}", binary.display()), Vec::new(), Some(hint))
    })
}
