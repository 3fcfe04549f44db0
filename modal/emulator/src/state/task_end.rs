//! Ends of containers, and their effect on inputs.

use std::time::Duration;

use modal_proto::{self as pb, generic_result::GenericStatus};

use super::{
    Now, State, Task,
    input::{Attempt, CrashNote},
    task::CANCELLED,
};
use crate::error::Error;

/// Containers of a function that may fail in a row before its waiting calls fail.
const MAX_START_FAILURES: u32 = 3;

/// How a container ended.
#[derive(Debug)]
pub struct TaskExit {
    /// Such as "exited with code 1", as text that follows "the container".
    pub how: String,
    /// Its last output.
    pub last_output: String,
}

impl State {
    /// A container reports that it cannot run the function, for example because its module cannot be imported: waiting
    /// calls fail with its error.
    pub fn task_failed(&mut self, task_id: &str, result: pb::GenericResult, now: Now) -> Result<(), Error> {
        let task = self.task_mut(task_id)?;
        if task.ready {
            tracing::warn!(task.id = task_id, exception = %result.exception, "a container failed after it had started");
            return Ok(());
        }
        task.failed = true;
        let function_id = task.definition.function_id.clone();
        self.health.entry(function_id.clone()).or_default().last_failure = Some(result.exception.clone());
        let attempt = Attempt {
            result,
            data_format: pb::DataFormat::Pickle.into(),
            task_id: task_id.to_owned(),
            started_at: now.wall,
            ended_at: now.wall,
        };
        self.fail_waiting(&function_id, &attempt);
        Ok(())
    }

    fn fail_waiting(&mut self, function_id: &str, attempt: &Attempt) {
        let waiting = self.queues.get(function_id).into_iter().flatten().cloned().collect();
        self.finish_waiting(function_id, &waiting, attempt);
        self.touch();
    }

    /// The process of a container has ended: its inputs go to another one, or end. Returns the log entries about that.
    pub fn task_exited(&mut self, task_id: &str, exit: &TaskExit, now: Now) -> Vec<CrashNote> {
        let mut notes = Vec::new();
        let Some(task) = self.tasks.remove(task_id) else { return notes };
        self.tokens.remove(&task.token);
        self.ended.add(&task, now);
        let expected = task.stop.is_some() || self.closing;
        for (input_id, running) in &task.running {
            match running.verdict.or(running.cancel_by.map(|_| GenericStatus::Terminated)) {
                Some(status) => {
                    let message = match status {
                        GenericStatus::Timeout => "the input took longer than the function's timeout",
                        _ => CANCELLED,
                    };
                    let mut attempt = Attempt::without_report(status, message, now);
                    attempt.task_id = task.id.clone();
                    attempt.started_at = running.started_at;
                    self.end_attempt(input_id, attempt, now);
                }
                // Its messages were read already, and the client may have seen a part of the response.
                None if self.inputs.get(input_id).is_some_and(|input| input.transient) => {
                    let message = format!("the container {}", exit.how);
                    let end = Attempt::without_report(GenericStatus::InternalFailure, message, now);
                    self.finish_input(input_id, end);
                }
                None if expected => self.requeue(input_id, None, now),
                None => notes.extend(self.end_crashed(input_id, &exit.how, now)),
            }
        }
        if !task.ready && (!expected || task.overdue) {
            self.start_failed(&task, exit, now);
        }
        self.touch();
        notes
    }

    fn start_failed(&mut self, task: &Task, exit: &TaskExit, now: Now) {
        let function_id = &task.definition.function_id;
        let awaited = match task.definition.server() {
            Some(config) => format!("it listened on port {}", config.port),
            None => "it could take an input".to_owned(),
        };
        let how = if task.overdue {
            format!("did not get ready within the {} s that it may take to start", task.start_limit().as_secs())
        } else {
            format!("{} before {awaited}", exit.how)
        };
        let message = format!("the container {how}.\n{}", exit.last_output);
        let message = message.trim_end();
        let health = self.health.entry(function_id.to_owned()).or_default();
        health.failures += 1;
        health.not_before = Some(now.mono + Duration::from_secs(1 << health.failures.min(4)) / 2);
        if !task.failed {
            health.last_failure = Some(message.to_owned());
        }
        let gives_up = !task.failed && health.failures >= MAX_START_FAILURES;
        // The next request asks for it again.
        self.requested_servers.remove(function_id);
        if gives_up {
            self.fail_waiting(function_id, &Attempt::without_report(GenericStatus::InitFailure, message, now));
        }
    }
}
