//! `tasks`: task instances, their logs, and how they run again.

use std::{collections::HashMap, time::Duration};

use airflow_serverless_api::{
    run::{LogLine, ReadLogs, TaskLog},
    task::{ClearTaskInstances, ListTaskInstances, TaskInstanceList, UpdateTaskInstance},
};

use super::Outcome;
use crate::{
    cli::{Task, Tasks},
    daemon::Daemon,
    failure::{ExitStatus, Failure},
    follow,
    printer::Printer,
};

pub async fn run(command: Tasks, printer: &Printer) -> Outcome {
    let daemon = Daemon::connect(printer).await?;
    match command {
        Tasks::List { run, state, page } => {
            let query = ListTaskInstances { state, limit: Some(page.limit), offset: Some(page.offset) };
            let path = (run.dag_id.as_str(), run.run_id.as_str());
            printer.result(&daemon.list_task_instances(&run.environment.name, path, &query).await?, listing);
        }
        Tasks::Logs { task, try_number, follow: true } => return follow_log(&daemon, &task, try_number, printer).await,
        Tasks::Logs { task, try_number, follow: false } => {
            let query = ReadLogs { try_number, map_index: task.map_index };
            printer.result(&daemon.get_task_log(&task.run.environment.name, task.path(), &query).await?, text);
        }
        Tasks::Retry(task) => {
            refuse_unless_failed(&daemon, &task).await?;
            let clear = ClearTaskInstances {
                map_index: task.map_index,
                include_downstream: true,
                only_failed: true,
                ..ClearTaskInstances::default()
            };
            let list = daemon.clear_task_instances(&task.run.environment.name, task.path(), &clear).await?;
            printer.result(&list, cleared);
        }
        Tasks::Clear { task, relatives, only_failed } => {
            let clear = ClearTaskInstances {
                map_index: task.map_index,
                include_upstream: relatives.upstream,
                include_downstream: relatives.downstream,
                only_failed,
            };
            let list = daemon.clear_task_instances(&task.run.environment.name, task.path(), &clear).await?;
            printer.result(&list, cleared);
        }
        Tasks::Mark { task, state, relatives } => {
            let update = UpdateTaskInstance {
                new_state: state,
                map_index: task.map_index,
                include_upstream: relatives.upstream,
                include_downstream: relatives.downstream,
            };
            let list = daemon.update_task_instance(&task.run.environment.name, task.path(), &update).await?;
            printer.result(&list, |list| follow::tasks(&list.task_instances));
        }
    }
    Ok(ExitStatus::Success)
}

/// How often a task that runs is asked for news.
const LOG_POLL: Duration = Duration::from_millis(500);

/// Prints the log as it grows until the task has ended, or its try if one was named.
async fn follow_log(daemon: &Daemon, task: &Task, wanted: Option<i32>, printer: &Printer) -> Outcome {
    let (dag_id, run_id, task_id) = task.path();
    let environment = &task.run.environment.name;
    let map_index = task.map_index.unwrap_or(-1);
    let mut current = wanted;
    let mut printed = Printed::default();
    loop {
        // First the state, then the log: of what had ended then, the log is complete.
        let run = daemon.get_dag_run(environment, dag_id, run_id).await?;
        let found = run.task_instances.iter().find(|task| task.task_id == task_id && task.map_index == map_index);
        let Some(found) = found else {
            let hint = "`airflow-serverless runs show` shows the tasks; one of a mapped task needs `--map-index`";
            return Err(Failure::input(format!("run {run_id} has no task {task_id}"), Vec::new(), Some(hint)));
        };
        let state = found.state.as_deref();
        let latest = wanted.unwrap_or(found.try_number);
        for try_number in current.unwrap_or(latest)..=latest {
            if current != Some(try_number) {
                (current, printed) = (Some(try_number), Printed::default());
            }
            let query = ReadLogs { try_number: Some(try_number), map_index: task.map_index };
            match daemon.get_task_log(environment, task.path(), &query).await {
                Ok(log) => printed.print_new(log.lines, printer),
                // It has not begun.
                Err(Failure::Refused(problem)) if problem.kind.ends_with("log-not-found") => {}
                Err(failure) => return Err(failure),
            }
        }
        let is_over = matches!(state, Some("success" | "failed" | "skipped" | "upstream_failed" | "removed"));
        if is_over || found.try_number > latest {
            let failed = matches!(state, Some("failed" | "upstream_failed"));
            return Ok(if failed { ExitStatus::Failure } else { ExitStatus::Success });
        }
        tokio::time::sleep(LOG_POLL).await;
    }
}

/// How often each line was printed: lines of triggers come late, between those that were there.
#[derive(Default)]
struct Printed(HashMap<String, usize>);

impl Printed {
    fn print_new(&mut self, lines: Vec<LogLine>, printer: &Printer) {
        let mut before = self.0.clone();
        for log_line in lines {
            let text = line(&log_line);
            match before.get_mut(&text).filter(|count| **count > 0) {
                Some(count) => *count -= 1,
                None => {
                    printer.line(&log_line, |_| text.clone());
                    *self.0.entry(text).or_default() += 1;
                }
            }
        }
    }
}

/// Clearing what failed would also reach tasks after one that has not failed.
async fn refuse_unless_failed(daemon: &Daemon, task: &Task) -> Result<(), Failure> {
    let (dag_id, run_id, task_id) = task.path();
    let run = daemon.get_dag_run(&task.run.environment.name, dag_id, run_id).await?;
    let has_failed = run.task_instances.iter().any(|instance| {
        instance.task_id == task_id
            && task.map_index.is_none_or(|index| index == instance.map_index)
            && matches!(instance.state.as_deref(), Some("failed" | "upstream_failed"))
    });
    if has_failed {
        return Ok(());
    }
    let hint = "`airflow-serverless tasks clear` lets a task run again whatever its state is";
    Err(Failure::input(format!("task {task_id} of run {run_id} has not failed"), Vec::new(), Some(hint)))
}

fn listing(list: &TaskInstanceList) -> String {
    if list.task_instances.is_empty() {
        return "no such tasks".to_owned();
    }
    let mut text = follow::tasks(&list.task_instances);
    let shown = list.task_instances.len() as i64;
    if shown < list.total_entries {
        text.push_str(&format!("\n{shown} of {} tasks; `--limit` and `--offset` show others", list.total_entries));
    }
    text
}

/// What was cleared, as it is now.
pub fn cleared(list: &TaskInstanceList) -> String {
    match list.task_instances.len() {
        0 => "nothing to clear".to_owned(),
        1 => format!("1 task runs again\n\n{}", follow::tasks(&list.task_instances)),
        count => format!("{count} tasks run again\n\n{}", follow::tasks(&list.task_instances)),
    }
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
