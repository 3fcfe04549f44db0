//! Tasks: containers, and the ways to stop them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use modal_proto::generic_result::GenericStatus;

use super::{Definition, Now, State};
use crate::{
    error::Error,
    ids::{new_id, new_token},
};

/// How long a container has to end a canceled input by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(10);

/// The error for the caller of a canceled call.
pub(super) const CANCELLED: &str = "the call was cancelled";

/// An input that a container runs.
#[derive(Debug)]
pub struct Running {
    pub started_at: f64,
    /// The container's delivery that it came with; a batch is one delivery.
    pub delivery: u32,
    /// When its attempt times out.
    pub deadline: Instant,
    /// Set once the server has decided how it ends, whatever the container reports later.
    pub verdict: Option<GenericStatus>,
    /// When a canceled input is ended, with its container unless that has others.
    pub cancel_by: Option<Instant>,
    /// Whether another input of its batch was cancelled, and the container will cancel all of the batch.
    pub batch_cancelled: bool,
}

/// The progress of stopping a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It gets no new inputs, and ends when it asks for some.
    Retire,
    /// It has to be interrupted.
    Interrupt,
    /// It was interrupted, and is killed at this time.
    Interrupted(Instant),
    /// It was killed.
    Killed,
}

/// A container.
#[derive(Debug)]
pub struct Task {
    pub id: String,
    pub token: String,
    pub definition: Arc<Definition>,
    pub started: Instant,
    /// The same in seconds since 1970.
    pub started_at: f64,
    /// Whether a stop signal runs its exit handlers: it has asked for inputs or, if it is a server, handles SIGTERM.
    /// Before that, it is killed instead.
    pub runs_user_code: bool,
    /// Whether a server has finished its start.
    pub entered: bool,
    /// Whether it has asked for inputs.
    pub ready: bool,
    /// Whether it reported that it could not start.
    pub failed: bool,
    /// Whether it was stopped because it took too long to start.
    pub overdue: bool,
    pub running: BTreeMap<String, Running>,
    /// The call and the input that ended last.
    pub last_ended: Option<(String, String)>,
    /// Inputs that its next heartbeat cancels.
    pub cancelled: Vec<String>,
    pub served: u32,
    /// The number of HTTP requests that it has, if it is a server.
    pub requests: u32,
    /// Since when it has been idle.
    pub idle_since: Instant,
    pub stop: Option<Stop>,
    /// When a retired container is interrupted.
    pub leave_by: Option<Instant>,
}

impl Task {
    /// How many more inputs it can take.
    pub fn capacity(&self) -> usize {
        self.capacity_of(self.definition.concurrency())
    }

    /// How many more inputs it should take, as long as there may be more containers.
    pub fn target_capacity(&self) -> usize {
        self.capacity_of(self.definition.target_concurrency())
    }

    fn capacity_of(&self, deliveries: usize) -> usize {
        if self.takes_no_more() {
            return 0;
        }
        let running: BTreeSet<u32> = self.running.values().map(|running| running.delivery).collect();
        deliveries.saturating_sub(running.len()) * self.definition.batch_size()
    }

    /// Whether it gets no more inputs, whatever it has now.
    pub fn takes_no_more(&self) -> bool {
        let function = &self.definition.function;
        let used_up = (function.single_use_containers || function.max_inputs == 1) && self.served > 0;
        self.stop.is_some() || self.failed || used_up
    }

    /// Whether it has inputs or requests.
    pub fn is_busy(&self) -> bool {
        !self.running.is_empty() || self.requests > 0
    }

    /// Whether it waits for inputs.
    pub fn is_idle(&self) -> bool {
        self.ready && !self.is_busy() && self.stop.is_none()
    }

    /// How long it may take until it asks for inputs.
    pub fn start_limit(&self) -> Duration {
        let function = &self.definition.function;
        Duration::from_secs(match (function.startup_timeout_secs, function.timeout_secs) {
            (0, 0) => 300,
            (0, limit) | (limit, _) => limit.into(),
        })
    }

    /// Gives it no more inputs.
    pub fn retire(&mut self) {
        self.stop.get_or_insert(Stop::Retire);
    }

    /// Asks it to end now.
    pub fn interrupt(&mut self) {
        if matches!(self.stop, None | Some(Stop::Retire)) {
            self.stop = Some(Stop::Interrupt);
        }
    }

    /// Cancels one of its inputs: by its next heartbeat, or with the container.
    pub fn cancel_input(&mut self, input_id: &str, with_container: bool, now: Now) {
        let Some(running) = self.running.get_mut(input_id) else { return };
        if with_container {
            running.verdict = Some(GenericStatus::Terminated);
            self.interrupt();
        } else if running.cancel_by.is_none() {
            running.cancel_by = Some(now.mono + CANCEL_GRACE);
            let delivery = running.delivery;
            let batch = self.running.values_mut().filter(|other| other.delivery == delivery);
            batch.for_each(|other| other.batch_cancelled = true);
            self.cancelled.push(input_id.to_owned());
        }
    }
}

impl State {
    /// The task of an id.
    pub fn task_mut(&mut self, id: &str) -> Result<&mut Task, Error> {
        self.tasks.get_mut(id).ok_or(Error::NotAContainer)
    }

    /// The function that a container runs.
    pub fn function_of_task(&self, id: &str) -> Result<&str, Error> {
        self.tasks.get(id).map(|task| task.definition.function_id.as_str()).ok_or(Error::NotAContainer)
    }

    /// The call and the input that output of a container belongs to, if it is only one: the running input, or the last
    /// one that ended, whose output is often read after its result.
    pub fn input_of_output(&self, task_id: &str) -> Option<(String, String)> {
        let task = self.tasks.get(task_id)?;
        let mut running = task.running.keys();
        match (running.next(), running.next()) {
            (Some(input_id), None) => Some((self.inputs.get(input_id)?.call_id.clone(), input_id.clone())),
            (None, _) if task.stop.is_none() => task.last_ended.clone(),
            _ => None,
        }
    }

    /// The containers of an app.
    pub fn tasks_of_app<'a>(&'a self, app_id: &'a str) -> impl Iterator<Item = &'a Task> {
        self.tasks.values().filter(move |task| task.definition.app_id == app_id)
    }

    /// Stops a container: at once, or after its inputs.
    pub fn stop_task(&mut self, id: &str, graceful: bool) -> Result<(), Error> {
        let task = self.tasks.get_mut(id).ok_or_else(|| Error::not_found("Task", id))?;
        if graceful {
            task.retire()
        } else {
            task.interrupt()
        }
        self.touch();
        Ok(())
    }

    /// Kills a container, like a failing machine.
    pub fn kill_task(&mut self, id: &str) {
        self.to_kill.push(id.to_owned());
        self.touch();
    }

    /// Interrupts a container, and gives its inputs to another one.
    pub fn preempt_task(&mut self, id: &str) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.interrupt();
        }
        self.touch();
    }

    pub(super) fn new_task(&mut self, definition: Arc<Definition>, now: Now) -> String {
        let task = Task {
            id: new_id("ta"),
            token: new_token(),
            definition,
            started: now.mono,
            started_at: now.wall,
            runs_user_code: false,
            entered: false,
            ready: false,
            failed: false,
            overdue: false,
            running: BTreeMap::new(),
            last_ended: None,
            cancelled: Vec::new(),
            served: 0,
            requests: 0,
            idle_since: now.mono,
            stop: None,
            leave_by: None,
        };
        let id = task.id.clone();
        self.tokens.insert(task.token.clone(), id.clone());
        self.tasks.insert(id.clone(), task);
        id
    }
}
