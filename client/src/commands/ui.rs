//! `ui`: runs Airflow's UI until this command ends.

use std::time::Duration;

use airflow_serverless_api::ui::UiReady;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};
use uuid::Uuid;

use super::Outcome;
use crate::{
    browser::Browser,
    cli::Ui,
    daemon::Daemon,
    error::{CliError, ExitStatus},
    printer::Printer,
    session,
    stream::UiEvent,
};

/// Longer than the daemon's limit for stopping a UI.
const END_LIMIT: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(100);

pub async fn ui(arguments: Ui, printer: &Printer) -> Outcome {
    let daemon = session::connect(printer).await?;
    let mut signals = Signals::new()?;
    let (mut id, mut browser) = (None, None);
    let show = |event| match event {
        UiEvent::Progress(progress) => {
            id = Some(progress.id);
            printer.note(&progress.message);
        }
        UiEvent::Ready(ready) => {
            printer.line(&ready, |ready: &UiReady| ready.url.clone());
            if !arguments.no_browser && printer.is_interactive() {
                browser = Browser::open(&ready.url, printer);
            }
            printer.note("Press Ctrl-C to stop");
        }
    };
    tokio::select! {
        ended = daemon.open_ui(&arguments.environment.name, show) => ended?,
        () = signals.next() => {}
    }
    // This closes the connection, so the UI stops.
    drop(browser);
    printer.note("Stopping the UI");
    tokio::select! {
        gone = until_gone(&daemon, id) => gone?,
        () = signals.next() => return Ok(ExitStatus::Failure),
    }
    Ok(ExitStatus::Success)
}

/// Waits until the daemon has stopped the UI.
async fn until_gone(daemon: &Daemon, id: Option<Uuid>) -> Result<(), CliError> {
    let Some(id) = id else { return Ok(()) };
    let deadline = Instant::now() + END_LIMIT;
    while daemon.list_uis().await?.uis.iter().any(|ui| ui.id == id) {
        if Instant::now() > deadline {
            let message = format!("the UI did not stop within {} s", END_LIMIT.as_secs());
            let hint = Some("`airflow-serverless daemon logs` shows why".to_owned());
            return Err(CliError::Unexpected { message, hint });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// The stop signals of this process.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        let of = |kind| signal(kind).map_err(|error| CliError::unexpected("receiving signals", error));
        Ok(Self { interrupt: of(SignalKind::interrupt())?, terminate: of(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.interrupt.recv() => {}, _ = self.terminate.recv() => {} }
    }
}
