//! `tasks`: the logs of task instances.

use airflow_serverless_api::run::{LogLine, ReadLogs, TaskLog};

use super::Outcome;
use crate::{cli::Tasks, daemon::Daemon, failure::ExitStatus, printer::Printer};

pub async fn run(command: Tasks, printer: &Printer) -> Outcome {
    let daemon = Daemon::connect(printer).await?;
    match command {
        Tasks::Logs { run, task_id, try_number, map_index } => {
            let query = ReadLogs { try_number, map_index };
            let path = (run.dag_id.as_str(), run.run_id.as_str(), task_id.as_str());
            printer.result(&daemon.get_task_log(&run.environment.name, path, &query).await?, text);
        }
    }
    Ok(ExitStatus::Success)
}

fn text(log: &TaskLog) -> String {
    log.lines.iter().map(line).collect()
}

fn line(line: &LogLine) -> String {
    match (&line.timestamp, &line.level) {
        (Some(timestamp), Some(level)) => format!("[{timestamp}] {}: {}\n", level.to_uppercase(), line.event),
        _ => format!("{}\n", line.event),
    }
}
