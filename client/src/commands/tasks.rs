//! `tasks`: task instances, their logs, and how they run again.

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
    stream::LogEvent,
};

pub async fn run(command: Tasks, printer: &Printer) -> Outcome {
    let daemon = Daemon::connect(printer).await?;
    match command {
        Tasks::List { run, state, page } => {
            let query = ListTaskInstances { state, limit: Some(page.limit), offset: Some(page.offset) };
            let path = (run.dag_id.as_str(), run.run_id.as_str());
            printer.result(&daemon.list_task_instances(&run.environment.name, path, &query).await?, listing);
        }
        Tasks::Logs { task, try_number, follow } => {
            let query = ReadLogs { try_number, map_index: task.map_index };
            if follow {
                return follow_log(&daemon, &task, &query, printer).await;
            }
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

/// Prints the log as it grows until the task has ended, or its try if one was named; a failure if that has failed.
async fn follow_log(daemon: &Daemon, task: &Task, query: &ReadLogs, printer: &Printer) -> Outcome {
    let mut query = query.clone();
    let is_one_try = query.try_number.is_some();
    loop {
        let mut end = None;
        let print = |event| match event {
            LogEvent::Line(found) => printer.line(&found, line),
            LogEvent::End(found) => {
                end = Some(found);
                false
            }
        };
        daemon.follow_task_log(&task.run.environment.name, task.path(), &query, print).await?;
        // Nobody reads any more.
        let Some(end) = end else { return Ok(ExitStatus::Success) };
        let state = end.state.as_deref().unwrap_or("removed");
        printer.note(&format!("try {} ended: {state}", end.try_number));
        if is_one_try || !matches!(state, "up_for_retry" | "queued" | "scheduled" | "running") {
            let has_failed = matches!(state, "failed" | "up_for_retry" | "upstream_failed");
            return Ok(if has_failed { ExitStatus::Failure } else { ExitStatus::Success });
        }
        query.try_number = Some(end.try_number + 1);
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
