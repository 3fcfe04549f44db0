//! `tasks`: task instances, their logs, and clearing and retrying them.

use airflow_serverless_api::{
    question::{AnswerQuestion, ListQuestions, Question, QuestionList},
    run::{LogLine, ReadLogs, TaskLog},
    task::{ClearTaskInstances, ListTaskInstances, TaskInstanceList, UpdateTaskInstance},
};

use super::{Outcome, env::warn_of_scheduler};
use crate::{
    cli::{Task, Tasks},
    daemon::Daemon,
    error::{CliError, ExitStatus},
    follow,
    printer::{Printer, cell, date, table},
    session,
    stream::LogEvent,
};

pub async fn run(command: Tasks, printer: &Printer) -> Outcome {
    let daemon = session::connect(printer).await?;
    match command {
        Tasks::List { run, state, page } => {
            let query = ListTaskInstances { state, limit: Some(page.limit), offset: Some(page.offset) };
            let path = (run.dag_id.as_str(), run.run_id.as_str());
            printer.result(&daemon.list_task_instances(&run.environment.name, path, &query).await?, listing);
            warn_of_scheduler(&daemon, &run.environment.name, printer).await;
        }
        Tasks::Logs { task, try_number, follow } => {
            let query = ReadLogs { try_number, map_index: task.map_index };
            if follow {
                return follow_log(&daemon, &task, &query, printer).await;
            }
            printer.data(&daemon.get_task_log(&task.run.environment.name, task.path(), &query).await?, text);
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
        Tasks::Questions { environment, dag_id, page } => {
            let query = ListQuestions { dag_id, limit: Some(page.limit), offset: Some(page.offset) };
            printer.result(&daemon.list_questions(&environment.name, &query).await?, questions);
            warn_of_scheduler(&daemon, &environment.name, printer).await;
        }
        Tasks::Answer { task, options, params } => {
            let params_input = params.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| {
                let what = format!("--params must be a JSON object such as {{\"amount\": 5}}: {error}");
                CliError::input(what, Vec::new(), None)
            })?;
            let answer = AnswerQuestion { chosen_options: options, params_input, map_index: task.map_index };
            let answered = daemon.answer_question(&task.run.environment.name, task.path(), &answer).await?;
            printer.result(&answered, |it| format!("{} is answered: {}", it.task_id, it.chosen_options.join(", ")));
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

fn questions(list: &QuestionList) -> String {
    if list.hitl_details.is_empty() {
        return "no open questions".to_owned();
    }
    let row = |it: &Question| {
        let index = if it.map_index < 0 { String::new() } else { format!("[{}]", it.map_index) };
        let task = format!("{}{index}", it.task_id);
        let options = format!("{}{}", it.options.join(", "), if it.multiple { " (one or more)" } else { "" });
        let params = it.params.as_object().into_iter().flat_map(|params| params.keys().cloned());
        let params = params.collect::<Vec<_>>().join(", ");
        let asked = [&it.subject, &options, &params].map(|text| cell(text));
        [vec![it.dag_id.clone(), it.dag_run_id.clone(), task], asked.to_vec(), vec![date(it.answer_by)]].concat()
    };
    let header = ["DAG", "RUN", "TASK", "QUESTION", "OPTIONS", "PARAMS", "ANSWER BY"];
    table(&header, list.hitl_details.iter().map(row))
}

/// Prints the log as it grows until the task, or the chosen try, has ended; returns a failure if it failed.
async fn follow_log(daemon: &Daemon, task: &Task, query: &ReadLogs, printer: &Printer) -> Outcome {
    let mut query = query.clone();
    let is_one_try = query.try_number.is_some();
    loop {
        let mut end = None;
        let print = |event| match event {
            LogEvent::Line(found) => printer.data_line(&found, line),
            LogEvent::End(found) => {
                end = Some(found);
                false
            }
        };
        daemon.follow_task_log(&task.run.environment.name, task.path(), &query, print).await?;
        // The reader of stdout is gone.
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

/// Fails unless the task failed: clearing failed tasks would otherwise reach tasks downstream of one that did not fail.
async fn refuse_unless_failed(daemon: &Daemon, task: &Task) -> Result<(), CliError> {
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
    let hint = "`airflow-serverless tasks clear` reruns a task in any state";
    Err(CliError::input(format!("task {task_id} of run {run_id} has not failed"), Vec::new(), Some(hint)))
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

/// Describes the cleared tasks.
pub fn cleared(list: &TaskInstanceList) -> String {
    match list.task_instances.len() {
        0 => "nothing to clear".to_owned(),
        1 => format!("1 task cleared\n\n{}", follow::tasks(&list.task_instances)),
        count => format!("{count} tasks cleared\n\n{}", follow::tasks(&list.task_instances)),
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
