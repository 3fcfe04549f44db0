//! Explains a failed run: the end of the first failed task's log, and the command that shows all of it.

use airflow_serverless_api::{
    environment::EnvironmentName,
    run::{DagRunDetail, ReadLogs, TaskInstance},
};

use crate::{daemon::Daemon, follow, printer::Printer};

/// Number of lines shown of a log.
const LAST_LINES: usize = 10;

/// Explains on stderr why a run has failed; prints nothing if it has not.
pub async fn failure(daemon: &Daemon, environment: &EnvironmentName, detail: &DagRunDetail, printer: &Printer) {
    if detail.run.state != "failed" {
        return;
    }
    let (dag_id, run_id) = (detail.run.dag_id.as_str(), detail.run.dag_run_id.as_str());
    let run = ["--env", environment.as_str(), "--dag-id", dag_id, "--run-id", run_id];
    let Some(task) = first_failed(&detail.task_instances) else {
        let show = command(&["tasks", "list"], &run);
        return printer.note(&format!("\nno task has failed; `{show}` shows the tasks"));
    };
    let try_number = task.try_number.to_string();
    let map_index = task.map_index.to_string();
    let mut words = [run.as_slice(), &["--task-id", &task.task_id, "--try", &try_number]].concat();
    if task.map_index >= 0 {
        words.extend(["--map-index", &map_index]);
    }
    let query =
        ReadLogs { try_number: Some(task.try_number), map_index: (task.map_index >= 0).then_some(task.map_index) };
    let name = follow::name(task);
    match daemon.get_task_log(environment, (dag_id, run_id, &task.task_id), &query).await {
        Ok(log) => {
            // A log line can be a whole traceback, whose end matters most.
            let text: Vec<&str> = log.lines.iter().flat_map(|line| line.event.lines()).collect();
            let last = &text[text.len().saturating_sub(LAST_LINES)..];
            let shown: String = last.iter().map(|line| format!("  {line}\n")).collect();
            let rest = command(&["tasks", "logs"], &words);
            printer.note(&format!(
                "\nlast lines of the log of {name}, the first task that failed:\n{shown}full log: {rest}"
            ));
        }
        Err(error) => printer.note(&format!("\n{name} failed first: {}", error.problem().detail)),
    }
}

/// Returns the task that failed first.
fn first_failed(tasks: &[TaskInstance]) -> Option<&TaskInstance> {
    let failed = tasks.iter().filter(|task| task.state.as_deref() == Some("failed"));
    // A task without an end never ran, so it explains the least.
    failed.min_by_key(|task| (task.end_date.is_none(), task.end_date))
}

/// Formats a command that can be pasted into a shell.
fn command(verb: &[&str], words: &[&str]) -> String {
    let all = ["airflow-serverless"].iter().chain(verb).chain(words);
    all.map(|word| shlex::try_quote(word).unwrap_or_else(|_| word.escape_default().to_string().into()))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(task_id: &str, state: &str, end: Option<&str>) -> TaskInstance {
        serde_json::from_value(serde_json::json!({
            "task_id": task_id, "map_index": -1, "state": state, "try_number": 1, "max_tries": 0, "operator": null,
            "start_date": null, "end_date": end, "duration": null
        }))
        .expect("a task instance")
    }

    #[test]
    fn earliest_failed_task_is_the_cause() {
        let tasks = [
            task("never", "failed", None),
            task("later", "failed", Some("2026-01-31T00:00:02Z")),
            task("after", "upstream_failed", Some("2026-01-31T00:00:00Z")),
            task("first", "failed", Some("2026-01-31T00:00:01Z")),
        ];
        assert_eq!(first_failed(&tasks).map(|task| task.task_id.as_str()), Some("first"));
        assert_eq!(first_failed(&tasks[2..3]), None);
    }

    #[test]
    fn suggested_commands_are_shell_quoted() {
        assert_eq!(
            command(&["tasks", "logs"], &["--run-id", "it's $HOME", "--task-id", "load"]),
            "airflow-serverless tasks logs --run-id \"it's \"'$HOME' --task-id load"
        );
    }
}
