//! Connects to the daemon, and starts it if necessary.

use airflow_serverless_api::home::Home;

use crate::{
    daemon::{Daemon, VERSION_LIMIT},
    daemon_status::DaemonStatus,
    error::CliError,
    home_lock,
    printer::Printer,
    start,
};

/// Connects to the daemon of this home; starts it if it is not running.
pub async fn connect(printer: &Printer) -> Result<Daemon, CliError> {
    let home = Home::from_environment().map_err(|error| CliError::unexpected("finding the daemon", error))?;
    if !home_lock::listens(&home) {
        start::start(&home, printer).await?;
    }
    let daemon = Daemon::at(&home)?;
    // A suspended daemon still accepts connections. A failure of another kind is reported by the next request.
    if daemon.responds().await {
        return Ok(daemon);
    }
    let unresponsive = DaemonStatus::unresponsive(&home, format!("no response within {} s", VERSION_LIMIT.as_secs()));
    Err(CliError::Unexpected { message: unresponsive.describe(), hint: unresponsive.hint() })
}
