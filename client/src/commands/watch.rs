//! `watch`: syncs folders to environments.

use std::{
    path::{Path, absolute},
    time::Duration,
};

use airflow_serverless_api::{
    environment::EnvironmentName,
    watch::{
        CreateWatch, FileWarning, InvalidFile, ListWatches, PendingAction, PendingFile, VolumeFileOrigin, VolumeFiles,
        Watch, WatchMode, WatchRemoval, WatchState,
    },
};
use console::style;

use super::Outcome;
use crate::{
    cli::{self, AddWatch},
    daemon::Daemon,
    error::{CliError, ExitStatus},
    printer::{Printer, date, indented, table},
    session,
};

const POLL: Duration = Duration::from_millis(150);
/// Limit on the lines of details below a table; `--json` shows more.
const MOST_LINES: usize = 20;

pub async fn run(command: cli::Watch, printer: &Printer) -> Outcome {
    match command {
        cli::Watch::Add(arguments) => add(arguments, printer).await,
        cli::Watch::List { environment } => {
            let list = session::connect(printer).await?.list_watches(&ListWatches { environment }).await?;
            printer.result(&list, |list| overview(&list.watches));
            Ok(ExitStatus::Success)
        }
        cli::Watch::Remove { watch, environment } => {
            let daemon = session::connect(printer).await?;
            let found = find(&daemon, &watch, environment).await?;
            printer.result(&daemon.delete_watch(found.id).await?, removed);
            Ok(ExitStatus::Success)
        }
    }
}

async fn add(arguments: AddWatch, printer: &Printer) -> Outcome {
    let request = CreateWatch {
        environment: arguments.environment.name,
        directory: text(&arguments.directory)?,
        delete: arguments.delete,
        patterns: arguments.patterns,
    };
    let daemon = session::connect(printer).await?;
    let mut watch = daemon.create_watch(&request).await?;
    if arguments.wait {
        printer.note(&format!("uploading {} to {}", watch.directory, watch.environment));
        let mut told = None;
        while watch.state == WatchState::Pending {
            if watch.message != told {
                told.clone_from(&watch.message);
                printer.note(&format!("waiting: {}", told.as_deref().unwrap_or("no longer")));
            }
            tokio::time::sleep(POLL).await;
            watch = daemon.get_watch(watch.id).await?;
        }
    }
    printer.result(&watch, added);
    let failed = arguments.wait && watch.state != WatchState::InSync;
    Ok(if failed { ExitStatus::Failure } else { ExitStatus::Success })
}

/// Returns the absolute path of the folder, as the daemon has another working directory.
fn text(directory: &Path) -> Result<String, CliError> {
    let fault = |reason: String| CliError::input(format!("{}: {reason}", directory.display()), vec![], None);
    let path = absolute(directory).map_err(|error| fault(error.to_string()))?;
    // Resolve `..` here, but keep links, so that their targets can change later.
    let leads_up = path.components().any(|part| part == std::path::Component::ParentDir);
    let path = if leads_up { path.canonicalize().map_err(|error| fault(error.to_string()))? } else { path };
    path.into_os_string().into_string().map_err(|_| fault("its path is not UTF-8".to_owned()))
}

async fn find(daemon: &Daemon, watch: &Path, environment: Option<EnvironmentName>) -> Result<Watch, CliError> {
    let watches = daemon.list_watches(&ListWatches { environment }).await?.watches;
    let id = watch.to_str().and_then(|text| text.parse::<uuid::Uuid>().ok());
    let directory = text(watch)?;
    let is_meant =
        |candidate: &Watch| Some(candidate.id) == id || Path::new(&candidate.directory) == Path::new(&directory);
    let mut found: Vec<Watch> = watches.into_iter().filter(is_meant).collect();
    match (found.pop(), found.is_empty()) {
        (Some(watch), true) => Ok(watch),
        (Some(_), false) => {
            let detail = format!("{directory} is watched for several environments");
            Err(CliError::input(detail, vec![], Some("choose one with `--env`")))
        }
        (None, _) => {
            let detail = format!("{} is not watched", watch.display());
            Err(CliError::input(detail, vec![], Some("`airflow-serverless watch list` shows the watched folders")))
        }
    }
}

fn added(watch: &Watch) -> String {
    let rule =
        if watch.delete { "files that are deleted there are deleted" } else { "files that are deleted there stay" };
    let mut text = format!("{} is watched for {}; on the Volume {rule}\n", watch.directory, watch.environment);
    match watch.state {
        WatchState::Pending => text.push_str("`airflow-serverless watch list` shows the progress"),
        _ => text.push_str(&overview(std::slice::from_ref(watch))),
    }
    text
}

fn removed(removal: &WatchRemoval) -> String {
    let files = match removal.files_kept {
        0 => "it had uploaded no files".to_owned(),
        1 => "its file stays on the Volume".to_owned(),
        count => format!("its {count} files stay on the Volume"),
    };
    format!("{} is no longer watched for {}; {files}", removal.directory, removal.environment)
}

fn overview(watches: &[Watch]) -> String {
    if watches.is_empty() {
        return "no watches; `airflow-serverless watch add DIR --env NAME` adds one".to_owned();
    }
    let row = |watch: &Watch| {
        vec![
            watch.directory.clone(),
            watch.environment.to_string(),
            state(watch.state),
            format!("{}/{}", watch.total_in_sync, watch.total_files),
            watch.total_pending.to_string(),
            watch.total_invalid.to_string(),
            watch.only_on_volume.as_ref().map_or_else(|| "-".to_owned(), |files| files.total_entries.to_string()),
            if watch.delete { "yes" } else { "no" }.to_owned(),
            date(watch.last_synced_at),
        ]
    };
    let header = ["DIRECTORY", "ENV", "STATE", "IN SYNC", "PENDING", "INVALID", "ONLY THERE", "DELETE", "LAST SYNCED"];
    let mut text = table(&header, watches.iter().map(row));
    for watch in watches {
        let details = details(watch);
        if !details.is_empty() {
            text.push_str(&format!("\n\n{}\n{}", watch.directory, details.join("\n")));
        }
    }
    text
}

fn state(state: WatchState) -> String {
    match state {
        WatchState::InSync => style("in sync").green(),
        WatchState::Pending => style("pending").cyan(),
        WatchState::Invalid => style("invalid").red(),
        WatchState::Missing => style("missing").yellow(),
        WatchState::Failed => style("failed").red(),
    }
    .to_string()
}

/// Returns the lines of details below the table.
fn details(watch: &Watch) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(message) = &watch.message {
        let again = watch.retry_at.map(|at| format!("; next try at {}", date(Some(at)))).unwrap_or_default();
        lines.push(format!("  {message}{again}"));
    }
    if watch.mode == WatchMode::Polling {
        lines.push(format!(
            "  {} {}",
            style("warning:").yellow(),
            watch.warning.as_deref().unwrap_or("the folder is polled")
        ));
    }
    list(&mut lines, watch.invalid.iter().map(invalid), watch.total_invalid);
    list(&mut lines, watch.warnings.iter().map(warning), watch.warnings.len() as u64);
    list(&mut lines, watch.pending.iter().map(pending), watch.total_pending);
    if let Some(files) = &watch.only_on_volume {
        list(&mut lines, only_there(files), files.total_entries);
    }
    lines
}

fn list(lines: &mut Vec<String>, entries: impl Iterator<Item = String>, total: u64) {
    let shown = lines.len();
    lines.extend(entries.take(MOST_LINES).map(|entry| format!("  {}", indented(&entry))));
    let rest = total.saturating_sub((lines.len() - shown) as u64);
    if rest > 0 {
        lines.push(format!("  … and {rest} more"));
    }
}

fn invalid(file: &InvalidFile) -> String {
    let line = file.line.map(|line| format!(":{line}")).unwrap_or_default();
    format!("{}{line}: {}", file.file, file.message)
}

fn warning(warning: &FileWarning) -> String {
    format!("{} {}: {}", style("warning:").yellow(), warning.file, warning.message)
}

fn pending(file: &PendingFile) -> String {
    let action = match file.action {
        PendingAction::Upload => "pending upload",
        PendingAction::Remove => "pending deletion",
    };
    let reason = file.reason.as_ref().map(|reason| format!("; {reason}")).unwrap_or_default();
    format!("{}: {action}{reason}", file.file)
}

fn only_there(files: &VolumeFiles) -> impl Iterator<Item = String> {
    files.files.iter().map(|file| match file.origin {
        VolumeFileOrigin::Kept => {
            format!("{}: only on the Volume; deleted in the folder, kept without --delete", file.file)
        }
        VolumeFileOrigin::Other => format!("{}: only on the Volume; not uploaded from this folder", file.file),
    })
}
