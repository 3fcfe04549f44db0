//! Task logs: JSON lines on the Volume, under Airflow's own paths.

use airflow_serverless_api::{
    environment::EnvironmentName,
    run::{LogLine, ReadLogs, TaskLog},
};
use serde_json::Value;

use super::Airflow;
use crate::error::{Error, Result};

impl Airflow {
    pub async fn task_log(
        &self,
        environment: &EnvironmentName,
        dag_id: &str,
        run_id: &str,
        task_id: &str,
        query: &ReadLogs,
    ) -> Result<TaskLog> {
        let map_index = query.map_index.unwrap_or(-1);
        let missing = |try_number| Error::LogNotFound { task_id: task_id.to_owned(), try_number };
        let detail = self.dag_run(environment, dag_id, run_id).await?;
        // The path is made of nothing but names that the metadata know.
        let mut tasks = detail.task_instances.iter();
        let task = tasks.find(|task| task.task_id == task_id && task.map_index == map_index);
        let task = task.ok_or_else(|| missing(query.try_number.unwrap_or(1)))?;
        let try_number = query.try_number.unwrap_or(task.try_number);
        let path = log_path(dag_id, run_id, task_id, map_index, try_number);
        let content = self.volume(environment).await?.read(&path).await?;
        let content = content.ok_or_else(|| missing(try_number))?;
        let lines = String::from_utf8_lossy(&content).lines().map(log_line).collect();
        Ok(TaskLog { task_id: task_id.to_owned(), map_index, try_number, lines })
    }
}

fn log_path(dag_id: &str, run_id: &str, task_id: &str, map_index: i32, try_number: i32) -> String {
    let mapped = if map_index >= 0 { format!("map_index={map_index}/") } else { String::new() };
    format!("/logs/dag_id={dag_id}/run_id={run_id}/task_id={task_id}/{mapped}attempt={try_number}.log")
}

/// A line of Airflow's JSON log; anything else is an event as it stands.
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

/// One exception of the chain that structlog records, as Python would print it.
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
    fn paths_are_airflows() {
        let path = log_path("etl", "manual__2026-01-01T00:00:00+00:00", "load", -1, 2);
        assert_eq!(path, "/logs/dag_id=etl/run_id=manual__2026-01-01T00:00:00+00:00/task_id=load/attempt=2.log");
        assert!(log_path("etl", "r", "load", 3, 1).ends_with("/task_id=load/map_index=3/attempt=1.log"));
    }

    #[test]
    fn exceptions_keep_their_frames() {
        let line = r#"{"event":"Task failed","level":"error","error_detail":[{"exc_type":"ValueError","exc_value":"boom",
            "frames":[{"filename":"a.py","lineno":3,"name":"f"}]}]}"#;
        let event = log_line(&line.replace('\n', "")).event;
        assert_eq!(event, "Task failed\n  File \"a.py\", line 3, in f\nValueError: boom");
        assert_eq!(log_line("plain text").event, "plain text");
    }
}
