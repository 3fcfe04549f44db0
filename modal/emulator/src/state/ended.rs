//! Containers that have ended, for clients that ask about them.

use std::collections::VecDeque;

use modal_proto as pb;

use super::{Now, State, Task};
use crate::error::Error;

/// The most ended containers that are remembered.
const MAX_ENDED: usize = 1_000;

/// The last containers that ended. They are lost when the process ends.
#[derive(Debug, Default)]
pub struct Ended(VecDeque<pb::TaskGetInfoResponse>);

impl Ended {
    /// Remembers a container, in place of the oldest one if there are too many.
    pub(super) fn add(&mut self, task: &Task, now: Now) {
        if self.0.len() == MAX_ENDED {
            self.0.pop_front();
        }
        self.0.push_back(info(task, now.wall));
    }
}

impl State {
    /// Information about a container, running or ended.
    pub fn task_info(&self, id: &str) -> Result<pb::TaskGetInfoResponse, Error> {
        let ended = || self.ended.0.iter().find(|ended| ended.info.as_ref().is_some_and(|info| info.id == id)).cloned();
        let found = self.tasks.get(id).map(|task| info(task, 0.0)).or_else(ended);
        found.ok_or_else(|| Error::not_found("Task", id))
    }
}

fn info(task: &Task, finished_at: f64) -> pb::TaskGetInfoResponse {
    let (started_at, enqueued_at) = (task.started_at, task.started_at);
    let info = pb::TaskInfo { id: task.id.clone(), started_at, finished_at, enqueued_at };
    pb::TaskGetInfoResponse { app_id: task.definition.app_id.clone(), info: Some(info) }
}
