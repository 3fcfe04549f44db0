//! Inputs that are delivered to containers, and their results.

use std::time::{Duration, Instant};

use modal_proto::{self as pb, generic_result::GenericStatus};

use super::{
    Now, State,
    input::Attempt,
    task::{CANCELLED, Running},
};
use crate::error::Error;

/// The response to a container that asks for inputs.
#[derive(Debug)]
pub enum Delivery {
    /// Inputs, as many as one call of the function's code takes.
    Work(Vec<pb::FunctionGetInputsItem>),
    /// Less than a batch waits. If it does not fill up, the container gets those inputs at this time.
    Linger(Instant),
    /// There will be no more inputs: the container has to end.
    Stop,
}

impl State {
    /// Delivers inputs to a container, if there are any, or tells it to end. `None`: ask again after a change.
    pub fn take_inputs(&mut self, task_id: &str, now: Now) -> Result<Option<Delivery>, Error> {
        let task = self.task_mut(task_id)?;
        if !task.ready {
            (task.ready, task.runs_user_code) = (true, true);
            task.idle_since = now.mono;
            let function_id = task.definition.function_id.clone();
            self.health.remove(&function_id);
            // The function may have too many containers now.
            self.touch();
        }
        let task = self.task_mut(task_id)?;
        if task.stop.is_some() {
            return Ok(Some(Delivery::Stop));
        }
        let (definition, alone) = (task.definition.clone(), task.definition.concurrency() == 1);
        if alone && !task.running.is_empty() {
            // It asks although it has inputs: the response with them was lost.
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
        self.deliver(task_id, &inputs, now)?;
        Ok(Some(Delivery::Work(self.deliveries(&inputs))))
    }

    fn deliver(&mut self, task_id: &str, inputs: &[String], now: Now) -> Result<(), Error> {
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
            // They are at or near its front.
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

    /// The first due inputs of a queue, as many as form one batch, which is for one method.
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

    /// Records a container's result of an input. It is dropped if the container does not have the input (any more): the
    /// server has ended the input, or another container has it. A repeated result of an earlier delivery is dropped,
    /// too.
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
}
