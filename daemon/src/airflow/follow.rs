//! Following the log of a task until the try has ended.

use std::{cmp::Ordering, sync::Arc, time::Duration};

use airflow_serverless_api::{
    environment::EnvironmentName,
    run::{LogEnd, LogLine, ReadLogs, TaskInstance},
};

use super::{
    Airflow, Deployed,
    logs::{instance, log_path, merged, no_log, read},
};
use crate::error::Result;

/// Pause between two reads of a log.
const PERIOD: Duration = Duration::from_millis(500);

/// One item of a followed log.
pub enum Piece {
    /// New lines, with their numbers.
    Lines(Vec<(usize, LogLine)>),
    End(LogEnd),
}

/// A log that is read as it grows.
pub struct FollowedLog {
    airflow: Arc<Airflow>,
    environment: EnvironmentName,
    dag_id: String,
    run_id: String,
    task_id: String,
    map_index: i32,
    try_number: i32,
    shown: usize,
    /// How the try has ended; the rest of its output may still be unread.
    end: Option<LogEnd>,
    is_read: bool,
}

impl Deployed {
    /// Follows the log of a try, which may not have begun yet.
    pub async fn follow_task_log(
        &self,
        (dag_id, run_id, task_id): (String, String, String),
        query: &ReadLogs,
    ) -> Result<FollowedLog> {
        let map_index = query.map_index.unwrap_or(-1);
        let detail = self.dag_run(&dag_id, &run_id).await?;
        let task = instance(&detail, &task_id, query.map_index)?;
        // A task that has not begun has no try number yet; its first try is 1.
        let try_number = query.try_number.unwrap_or(task.try_number.max(1));
        // Waits for a try that may still come.
        if is_final(task.state.as_deref()) && !(1..=task.try_number.max(1)).contains(&try_number) {
            return Err(no_log(task, try_number).into());
        }
        let (shown, end, is_read) = (0, None, false);
        let (airflow, environment) = (self.airflow.clone(), self.name().clone());
        Ok(FollowedLog { airflow, environment, dag_id, run_id, task_id, map_index, try_number, shown, end, is_read })
    }
}

impl FollowedLog {
    /// Waits for the next piece.
    pub async fn next(&mut self) -> Result<Piece> {
        loop {
            if let Some(end) = self.end.take_if(|_| self.is_read) {
                return Ok(Piece::End(end));
            }
            // The environment may be redeployed or deleted while its log is followed.
            let deployed = self.airflow.deployed(&self.environment).await?;
            // State before log: this guarantees that the log of a finished try is complete.
            if self.end.is_none() {
                self.end = self.ended(&deployed).await?;
            }
            self.is_read = self.end.is_some();
            let lines = self.lines(&deployed).await?;
            if !lines.is_empty() {
                return Ok(Piece::Lines(lines));
            }
            if self.end.is_none() {
                tokio::time::sleep(PERIOD).await;
            }
        }
    }

    async fn ended(&self, deployed: &Deployed) -> Result<Option<LogEnd>> {
        let detail = deployed.dag_run(&self.dag_id, &self.run_id).await?;
        let state = match find(&detail.task_instances, &self.task_id, self.map_index) {
            Some(task) if self.may_come(task) => return Ok(None),
            Some(task) => task.state.clone(),
            None => None,
        };
        Ok(Some(LogEnd { try_number: self.try_number, state }))
    }

    /// Whether the followed try may still produce output.
    fn may_come(&self, task: &TaskInstance) -> bool {
        let state = task.state.as_deref();
        match task.try_number.cmp(&self.try_number) {
            Ordering::Less => !is_final(state),
            Ordering::Equal => goes_on(state),
            Ordering::Greater => false,
        }
    }

    async fn lines(&mut self, deployed: &Deployed) -> Result<Vec<(usize, LogLine)>> {
        let path = log_path(&self.dag_id, &self.run_id, &self.task_id, self.map_index, self.try_number);
        let files = read(&deployed.volume().await?, &path).await?;
        let new: Vec<_> = merged(&files).into_iter().enumerate().skip(self.shown).collect();
        self.shown += new.len();
        Ok(new)
    }
}

fn find<'a>(tasks: &'a [TaskInstance], task_id: &str, map_index: i32) -> Option<&'a TaskInstance> {
    tasks.iter().find(|task| task.task_id == task_id && task.map_index == map_index)
}

/// Whether a task in this state has no more tries unless it is cleared.
fn is_final(state: Option<&str>) -> bool {
    matches!(state, Some("success" | "failed" | "skipped" | "upstream_failed" | "removed"))
}

/// Whether a try in this state may still produce output.
fn goes_on(state: Option<&str>) -> bool {
    matches!(state, None | Some("scheduled" | "queued" | "running" | "restarting" | "deferred" | "up_for_reschedule"))
}
