//! `doctor`: checks the installation and suggests fixes.

mod checks;

use airflow_serverless_api::{home::Home, watch::ListWatches};
use console::style;
use serde::Serialize;

use self::checks::{Check, Verdict};
use super::Outcome;
use crate::{
    daemon::Daemon,
    daemon_status::DaemonStatus,
    error::{CliError, ExitStatus},
    home_lock,
    printer::Printer,
    start,
};

#[derive(Serialize)]
struct Report {
    /// The worst result of the checks.
    verdict: Verdict,
    checks: Vec<Check>,
}

pub async fn run(printer: &Printer) -> Outcome {
    let home = Home::from_environment().map_err(|error| CliError::unexpected("finding the daemon", error))?;
    let home = home_lock::resolve_running_home(&home);
    let mut found = vec![checks::binary(&start::binary()), checks::settings_folder(&home)];
    match DaemonStatus::of(&home).await? {
        DaemonStatus::Running(version) => {
            let daemon = Daemon::at(&home)?;
            found.push(checks::daemon(&version));
            found.push(checks::socket(&home));
            found.push(checks::versions(&version));
            found.push(checks::inotify());
            let watches = daemon.list_watches(&ListWatches::default()).await;
            found.extend(watches.ok().and_then(|list| checks::polling(&list.watches)));
            let asked = chrono::Utc::now();
            match daemon.run_diagnostics().await {
                Ok(diagnostics) => found.extend(checks::diagnosed(&diagnostics, asked, chrono::Utc::now())),
                Err(failure) => found.push(checks::no_diagnosis(&failure)),
            }
        }
        other => found.push(checks::no_daemon(&other)),
    }
    let verdict = found.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
    printer.result(&Report { verdict, checks: found }, |report| report.checks.iter().map(show).collect());
    Ok(if verdict == Verdict::Failure { ExitStatus::Failure } else { ExitStatus::Success })
}

fn show(check: &Check) -> String {
    let mark = match check.verdict {
        Verdict::Ok => style("✓").green(),
        Verdict::Warning => style("!").yellow(),
        Verdict::Failure => style("✗").red(),
    };
    let fix = check.fix.as_ref().map(|fix| format!("  {} {fix}\n", style("fix:").cyan())).unwrap_or_default();
    format!("{mark} {}: {}\n{fix}", check.name, check.detail)
}
