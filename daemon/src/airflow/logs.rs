//! Task logs: JSON lines on the Volume, under Airflow's own paths.

use airflow_serverless_api::run::{DagRunDetail, LogLine, ReadLogs, TaskInstance, TaskLog};
use chrono::{DateTime, Utc};
use modal_client::{Entry, EntryKind, Volume};
use serde_json::Value;

use super::Deployed;
use crate::error::{NoLog, Result};

impl Deployed {
    /// Returns the log of one try: of its process, and of the triggers that it waited for.
    pub async fn task_log(&self, dag_id: &str, run_id: &str, task_id: &str, query: &ReadLogs) -> Result<TaskLog> {
        let map_index = query.map_index.unwrap_or(-1);
        let detail = self.dag_run(dag_id, run_id).await?;
        // The path contains only names that the metadata database knows.
        let task = instance(&detail, task_id, query.map_index)?;
        let try_number = query.try_number.unwrap_or(task.try_number);
        let path = log_path(dag_id, run_id, task_id, map_index, try_number);
        let files = read(&self.volume().await?, &path).await?;
        if files.is_empty() {
            return Err(no_log(task, try_number).into());
        }
        Ok(TaskLog { task_id: task_id.to_owned(), map_index, try_number, lines: merged(&files) })
    }
}

/// Returns the task instance whose log is requested.
pub(super) fn instance<'a>(
    detail: &'a DagRunDetail,
    task_id: &str,
    map_index: Option<i32>,
) -> Result<&'a TaskInstance, NoLog> {
    let of_task = || detail.task_instances.iter().filter(|task| task.task_id == task_id);
    if let Some(task) = of_task().find(|task| task.map_index == map_index.unwrap_or(-1)) {
        return Ok(task);
    }
    let task_id = task_id.to_owned();
    let count = of_task().filter(|task| task.map_index >= 0).count();
    Err(match (of_task().next(), map_index) {
        (None, _) => {
            let mut known: Vec<_> = detail.task_instances.iter().map(|task| task.task_id.clone()).collect();
            known.sort();
            known.dedup();
            NoLog::UnknownTask { run_id: detail.run.dag_run_id.clone(), task_id, known }
        }
        (Some(_), Some(map_index)) if count == 0 => NoLog::NotMapped { task_id, map_index },
        (Some(_), Some(map_index)) if map_index >= 0 => NoLog::NoSuchInstance { task_id, map_index, count },
        (Some(_), _) => NoLog::Mapped { task_id, count },
    })
}

/// Explains why a try of a task has no log.
pub(super) fn no_log(task: &TaskInstance, try_number: i32) -> NoLog {
    let task_id = task.task_id.clone();
    // A task that the scheduler has skipped has a start, but no number; one that waits for its try has a number.
    let never_ran = task.try_number < 1 || task.try_number == 1 && task.start_date.is_none();
    match task.state.as_deref() {
        _ if try_number < 1 && task.try_number > 0 || try_number > task.try_number.max(1) => {
            NoLog::NoSuchTry { task_id, try_number, last: task.try_number.max(0) }
        }
        None | Some("scheduled" | "queued" | "skipped" | "upstream_failed" | "removed") if never_ran => {
            NoLog::NotStarted { task_id, state: task.state.clone() }
        }
        _ => NoLog::NotThere { task_id, try_number },
    }
}

/// Reads the file at a path, and the files next to it that triggers have written for the same try.
pub(super) async fn read(volume: &Volume, path: &str) -> Result<Vec<String>> {
    let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
    let belongs = |entry: &Entry| {
        let rest = entry.path.strip_prefix(path.trim_start_matches('/'));
        entry.kind == EntryKind::File && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(".trigger."))
    };
    let mut paths: Vec<_> = volume.list(folder, false).await?.into_iter().filter(belongs).map(|e| e.path).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        files.extend(volume.read(&format!("/{path}")).await?.map(|content| String::from_utf8_lossy(&content).into()));
    }
    Ok(files)
}

/// Merges the lines of several files by time; keeps the order within each file.
pub(super) fn merged(files: &[String]) -> Vec<LogLine> {
    let mut lines = Vec::new();
    for file in files {
        let mut latest = None;
        for line in file.lines().map(log_line) {
            latest = latest.max(line.timestamp.as_deref().and_then(|text| text.parse::<DateTime<Utc>>().ok()));
            lines.push((latest, line));
        }
    }
    lines.sort_by_key(|(at, _)| *at);
    lines.into_iter().map(|(_, line)| line).collect()
}

pub(super) fn log_path(dag_id: &str, run_id: &str, task_id: &str, map_index: i32, try_number: i32) -> String {
    let mapped = if map_index >= 0 { format!("map_index={map_index}/") } else { String::new() };
    format!("/logs/dag_id={dag_id}/run_id={run_id}/task_id={task_id}/{mapped}attempt={try_number}.log")
}

/// Parses a line of Airflow's JSON log; any other text becomes an event as it is.
fn log_line(line: &str) -> LogLine {
    let Ok(Value::Object(fields)) = serde_json::from_str(line) else {
        return LogLine { timestamp: None, level: None, logger: None, event: line.to_owned() };
    };
    let text = |key: &str| fields.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
    let mut event = text("event").unwrap_or_default();
    for detail in fields.get("error_detail").and_then(Value::as_array).into_iter().flatten() {
        event.push_str(&format!("\n{}", exception(detail)));
    }
    LogLine { timestamp: text("timestamp"), level: text("level"), logger: text("logger"), event }
}

/// Formats one exception of the chain that structlog records, as Python would print it.
fn exception(detail: &Value) -> String {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
    let mut lines: Vec<String> = detail
        .get("frames")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|frame| {
            let number = frame.get("lineno").and_then(Value::as_u64).unwrap_or_default();
            format!("  File \"{}\", line {number}, in {}", text(frame, "filename"), text(frame, "name"))
        })
        .collect();
    lines.push(format!("{}: {}", text(detail, "exc_type"), text(detail, "exc_value")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_paths_match_airflow() {
        let path = log_path("etl", "manual__2026-01-01T00:00:00+00:00", "load", -1, 2);
        assert_eq!(path, "/logs/dag_id=etl/run_id=manual__2026-01-01T00:00:00+00:00/task_id=load/attempt=2.log");
        assert!(log_path("etl", "r", "load", 3, 1).ends_with("/task_id=load/map_index=3/attempt=1.log"));
    }

    #[test]
    fn log_files_are_merged_by_time() {
        let line = |second, event| format!(r#"{{"timestamp":"2026-01-01T00:00:0{second}Z","event":"{event}"}}"#);
        let worker = format!("{}\nplain\n{}\n{}", line("1", "deferred"), line("5.5", "resumed"), line("5", "late"));
        let trigger = format!("{}\n{}", line("2", "starting"), line("5.25", "fired"));
        let events: Vec<_> = merged(&[worker, trigger]).into_iter().map(|line| line.event).collect();
        assert_eq!(events, ["deferred", "plain", "starting", "fired", "resumed", "late"]);
    }

    #[test]
    fn exception_frames_are_kept_in_log_lines() {
        let line = r#"{"event":"Task failed","level":"error","error_detail":[{"exc_type":"ValueError","exc_value":"boom",
            "frames":[{"filename":"a.py","lineno":3,"name":"f"}]}]}"#;
        let event = log_line(&line.replace('\n', "")).event;
        assert_eq!(event, "Task failed\n  File \"a.py\", line 3, in f\nValueError: boom");
        assert_eq!(log_line("plain text").event, "plain text");
    }
}
