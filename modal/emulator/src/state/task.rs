//! Tasks: containers, from the decision to start one to its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use modal_proto::{self as pb, generic_result::GenericStatus};

use super::{
    Definition, Now, State,
    input::{Attempt, CrashNote},
};
use crate::{
    error::Error,
    ids::{new_id, new_token},
};

/// Containers of a function that may fail in a row before its waiting calls are given up.
const MAX_START_FAILURES: u32 = 3;
/// How long a container has to end a cancelled input by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(10);

/// What the caller of a cancelled call is told.
pub(super) const CANCELLED: &str = "the call was cancelled";

/// An input that a container has.
#[derive(Debug)]
pub struct Running {
    pub started_at: f64,
    /// Which of the container's deliveries it came with; a batch comes as one.
    pub delivery: u32,
    /// When its attempt has taken too long.
    pub deadline: Instant,
    /// Set once the server decided how it ends, whatever the container says later.
    pub verdict: Option<GenericStatus>,
    /// When a cancelled input is ended, with its container unless that has others.
    pub cancel_by: Option<Instant>,
    /// Whether another input of its batch was cancelled, and the container will cancel all of the batch.
    pub batch_cancelled: bool,
}

/// How far stopping a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It gets no new work and is told to end when it asks for some.
    Retire,
    /// It is to be interrupted.
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
    /// Whether a stop signal runs its exit handlers: it has asked for work or, if it is a server, handles SIGTERM.
    /// Until then it is killed.
    pub runs_user_code: bool,
    /// Whether it is done with what a server does at its start.
    pub entered: bool,
    /// Whether it has asked for work.
    pub ready: bool,
    /// Whether it reported that it could not start.
    pub failed: bool,
    /// Whether it was stopped because it took too long to start.
    pub overdue: bool,
    pub running: BTreeMap<String, Running>,
    /// The call and the input that ended last.
    pub last_ended: Option<(String, String)>,
    /// Inputs that its next heartbeat tells it to cancel.
    pub cancelled: Vec<String>,
    pub served: u32,
    /// The HTTP requests that it has, if it is a server.
    pub requests: u32,
    /// Since when it has had nothing to do.
    pub idle_since: Instant,
    pub stop: Option<Stop>,
    /// When a retired container is interrupted.
    pub leave_by: Option<Instant>,
}

impl Task {
    /// How many more inputs it would take.
    pub fn capacity(&self) -> usize {
        self.capacity_of(self.definition.concurrency())
    }

    /// How many more inputs are enough for it, as long as there may be more containers.
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

    /// Whether it will be given no more work, whatever it has now.
    pub fn takes_no_more(&self) -> bool {
        let function = &self.definition.function;
        let used_up = (function.single_use_containers || function.max_inputs == 1) && self.served > 0;
        self.stop.is_some() || self.failed || used_up
    }

    /// Whether it has something to do.
    pub fn is_busy(&self) -> bool {
        !self.running.is_empty() || self.requests > 0
    }

    /// Whether it waits for work.
    pub fn is_idle(&self) -> bool {
        self.ready && !self.is_busy() && self.stop.is_none()
    }

    /// How long it may take until it asks for work.
    pub fn start_limit(&self) -> Duration {
        let function = &self.definition.function;
        Duration::from_secs(match (function.startup_timeout_secs, function.timeout_secs) {
            (0, 0) => 300,
            (0, limit) | (limit, _) => limit.into(),
        })
    }

    /// Gives it no more work.
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

/// What a container that asks for work gets.
#[derive(Debug)]
pub enum Delivery {
    /// As many inputs as one call of the function's code takes.
    Work(Vec<pb::FunctionGetInputsItem>),
    /// There is less than a batch: if it does not fill up, what there is can be had at this time.
    Linger(Instant),
    /// There will be no more.
    Stop,
}

/// How a container ended.
#[derive(Debug)]
pub struct TaskExit {
    /// Such as "exited with code 1", to follow "the container".
    pub how: String,
    /// The end of what it printed.
    pub last_output: String,
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

    /// The call and the input to which output of a container belongs, if that is clear: those it works on, or those
    /// that ended last, whose output is often read after their result.
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

    /// Stops a container: at once, or after what it is doing.
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

    /// Has a container killed, as a machine that fails would.
    pub fn kill_task(&mut self, id: &str) {
        self.doomed.push(id.to_owned());
        self.touch();
    }

    /// Tells a container to end at once, and gives its inputs to another one.
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

    /// Gives a container work, if there is some for it, or tells it to end. `None`: ask again when something changed.
    pub fn take_inputs(&mut self, task_id: &str, now: Now) -> Result<Option<Delivery>, Error> {
        let task = self.task_mut(task_id)?;
        if !task.ready {
            (task.ready, task.runs_user_code) = (true, true);
            task.idle_since = now.mono;
            let function_id = task.definition.function_id.clone();
            self.health.remove(&function_id);
            // It may be one too many by now.
            self.touch();
        }
        let task = self.task_mut(task_id)?;
        if task.stop.is_some() {
            return Ok(Some(Delivery::Stop));
        }
        let (definition, alone) = (task.definition.clone(), task.definition.concurrency() == 1);
        if alone && !task.running.is_empty() {
            // It asks although it has something: the answer that carried it got lost.
            let running: Vec<String> = task.running.keys().cloned().collect();
            return Ok(Some(Delivery::Work(self.deliveries(&running))));
        }
        if task.capacity() == 0 {
            return Ok(None);
        }
        let inputs = self.next_queued(&definition.function_id, definition.batch_size(), now);
        let Some(first) = inputs.first().and_then(|id| self.inputs.get(id)) else { return Ok(None) };
        if inputs.len() < definition.batch_size() {
            let linger = Duration::from_millis(definition.function.batch_linger_ms);
            let until = first.queued.map_or(now.mono, |queued| queued + linger);
            if until > now.mono {
                return Ok(Some(Delivery::Linger(until)));
            }
        }
        self.hand_over(task_id, &inputs, now)?;
        Ok(Some(Delivery::Work(self.deliveries(&inputs))))
    }

    fn hand_over(&mut self, task_id: &str, inputs: &[String], now: Now) -> Result<(), Error> {
        let task = self.task_mut(task_id)?;
        task.served += 1;
        let delivery = task.served;
        let definition = task.definition.clone();
        let limit = definition.function.timeout_secs;
        let limit = Duration::from_secs(if limit == 0 { 300 } else { u64::from(limit) });
        let deadline = now.mono + limit;
        for id in inputs {
            let running = Running {
                started_at: now.wall,
                delivery,
                deadline,
                verdict: None,
                cancel_by: None,
                batch_cancelled: false,
            };
            task.running.insert(id.clone(), running);
        }
        if let Some(queue) = self.queues.get_mut(&definition.function_id) {
            // They are at its front, or close to it.
            for id in inputs {
                if let Some(position) = queue.iter().position(|queued| queued == id) {
                    queue.remove(position);
                }
            }
        }
        for id in inputs {
            let Some(input) = self.inputs.get_mut(id) else { continue };
            input.task_id = Some(task_id.to_owned());
            let call_id = input.call_id.clone();
            self.touch_for(&call_id);
        }
        Ok(())
    }

    /// The first inputs of a queue whose time has come, as many as go together: a batch is for one method.
    fn next_queued(&self, function_id: &str, most: usize, now: Now) -> Vec<String> {
        let queue = self.queues.get(function_id).into_iter().flatten();
        let mut due =
            queue.filter_map(|id| self.inputs.get(id)).filter(|input| input.not_before.is_none_or(|at| at <= now.mono));
        let Some(first) = due.next() else { return Vec::new() };
        let method = &first.arguments.method_name;
        let more = due.filter(|input| input.arguments.method_name == *method).take(most - 1);
        std::iter::once(first).chain(more).map(|input| input.id.clone()).collect()
    }

    fn deliveries(&self, inputs: &[String]) -> Vec<pb::FunctionGetInputsItem> {
        inputs.iter().filter_map(|id| self.delivery(id)).collect()
    }

    fn delivery(&self, input_id: &str) -> Option<pb::FunctionGetInputsItem> {
        let input = self.inputs.get(input_id)?;
        let invocation = self.calls.get(&input.call_id).map(|c| c.invocation).unwrap_or_default();
        Some(pb::FunctionGetInputsItem {
            input_id: input.id.clone(),
            input: Some(input.arguments.clone()),
            function_call_id: input.call_id.clone(),
            function_call_invocation_type: invocation,
            retry_count: input.retry_count,
            function_map_idx: Some(input.idx),
            ..Default::default()
        })
    }

    /// Whether a container runs an input of a call.
    pub fn runs_call(&self, task_id: &str, call_id: &str) -> bool {
        let inputs = self.tasks.get(task_id).into_iter().flat_map(|task| task.running.keys());
        inputs.filter_map(|id| self.inputs.get(id)).any(|input| input.call_id == call_id)
    }

    /// Takes a container's result of an input. Results of inputs it does not have (any more) are dropped: the server
    /// has ended them, or another container has them. So are repeated results of an earlier delivery of an input that
    /// the container has again.
    pub fn put_output(&mut self, task_id: &str, output: pb::FunctionPutOutputsItem, now: Now) -> Result<(), Error> {
        let input = self.inputs.get(&output.input_id);
        let is_repeated = input.is_some_and(|input| input.retry_count != output.retry_count);
        let call_id = input.map(|input| input.call_id.clone());
        let task = self.task_mut(task_id)?;
        if is_repeated {
            return Ok(());
        }
        let Some(running) = task.running.get(&output.input_id) else { return Ok(()) };
        if running.verdict.is_some() {
            return Ok(());
        }
        let started_at = running.started_at;
        let only_batch_cancelled = running.batch_cancelled && running.cancel_by.is_none();
        task.running.remove(&output.input_id);
        task.last_ended = call_id.map(|call_id| (call_id, output.input_id.clone()));
        if task.running.is_empty() {
            task.idle_since = now.mono;
        }
        let mut result = output.result.unwrap_or_default();
        if only_batch_cancelled && result.status() == GenericStatus::Terminated {
            self.requeue(&output.input_id, None, now);
            return Ok(());
        }
        if result.status() == GenericStatus::Terminated && result.exception.is_empty() {
            CANCELLED.clone_into(&mut result.exception);
        }
        let attempt = Attempt {
            result,
            data_format: output.data_format,
            task_id: task_id.to_owned(),
            started_at,
            ended_at: now.wall,
        };
        let function_id = task.definition.function_id.clone();
        self.end_attempt(&output.input_id, attempt, now);
        self.touch_for(&function_id);
        Ok(())
    }

    /// A container says that it cannot run the function (its module does not import, say): those who wait hear why.
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

    /// The process of a container is gone: what it had goes to another one, or ends. Returns what is to be logged of it.
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
                // Its messages were read already, and the client has perhaps seen half an answer.
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
        self.wanted_servers.remove(function_id);
        if gives_up {
            self.fail_waiting(function_id, &Attempt::without_report(GenericStatus::InitFailure, message, now));
        }
    }
}
