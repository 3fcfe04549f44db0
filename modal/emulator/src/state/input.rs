//! Inputs: one execution of a function each, from the queue to its output.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use modal_proto::{self as pb, AppState, generic_result::GenericStatus};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{
    Now, State,
    task::{CANCELLED, Running},
};
use crate::{error::Error, ids::new_id, store::Record};

/// How many containers may die while they run an input, if its app is not deployed.
const MAX_CRASHES: u32 = 3;
/// The longest pause before an input is delivered again.
const LONGEST_CRASH_DELAY: Duration = Duration::from_secs(60);
/// The most inputs of one function that wait for a container.
const MAX_BACKLOG: usize = 100_000;

/// An input without an output yet. After a restart it is queued again, whether or not it was running.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Input {
    pub id: String,
    pub call_id: String,
    pub function_id: String,
    /// Its index in the call.
    pub idx: i32,
    /// Deliveries without an output; the SDK drops a repeated delivery unless this has increased.
    pub retry_count: u32,
    /// How many retries of the function's policy were used.
    pub retries_used: u32,
    /// How many containers died while they ran it.
    pub crashes: u32,
    pub created_at: f64,
    /// The earliest time of its next delivery.
    #[serde(skip)]
    pub not_before: Option<Instant>,
    /// Since when it has waited.
    #[serde(skip)]
    pub queued: Option<Instant>,
    /// Whether it ends with the connection of its web request, so that it is not stored.
    #[serde(skip)]
    pub transient: bool,
    /// The container that has it.
    #[serde(skip)]
    pub task_id: Option<String>,
    #[serde(skip)]
    pub arguments: pb::FunctionInput,
}

impl Record for Input {
    const KIND: &'static str = "input";
    fn id(&self) -> &str {
        &self.id
    }
    fn payload(&self) -> Bytes {
        self.arguments.encode_to_vec().into()
    }
    fn set_payload(&mut self, payload: Bytes) {
        // Encoded here before it was stored, so this succeeds; empty arguments would fail the call visibly.
        self.arguments = pb::FunctionInput::decode(payload).unwrap_or_default();
    }
}

/// The result of an input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Output {
    pub input_id: String,
    pub call_id: String,
    /// Its position among the outputs of the call.
    pub sequence: u32,
    /// The index of its input in the call.
    #[serde(skip)]
    pub idx: i32,
    /// A `FunctionGetOutputsItem` in its stored form. Decoded, it would take many times the memory, and keep the buffer
    /// of the whole message that it was in.
    #[serde(skip)]
    encoded: Bytes,
}

impl Output {
    /// The output in the form that callers get.
    pub fn item(&self) -> pb::FunctionGetOutputsItem {
        // Encoded here, so this succeeds.
        pb::FunctionGetOutputsItem::decode(self.encoded.clone()).unwrap_or_default()
    }

    /// Bytes of the item in a message.
    pub fn encoded_len(&self) -> usize {
        self.encoded.len()
    }
}

impl Record for Output {
    const KIND: &'static str = "output";
    fn id(&self) -> &str {
        &self.input_id
    }
    fn payload(&self) -> Bytes {
        self.encoded.clone()
    }
    fn set_payload(&mut self, payload: Bytes) {
        self.encoded = payload;
        self.idx = self.item().idx;
    }
}

/// The log entry about an input whose container died.
#[derive(Debug, PartialEq, Eq)]
pub struct CrashNote {
    pub call_id: String,
    pub input_id: String,
    /// A line, with its line break.
    pub text: String,
}

/// How one delivery of an input ended.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    pub result: pb::GenericResult,
    pub data_format: i32,
    pub task_id: String,
    pub started_at: f64,
    pub ended_at: f64,
}

impl Attempt {
    /// An end that the container did not report itself.
    pub fn without_report(status: GenericStatus, message: impl Into<String>, now: Now) -> Self {
        let result = pb::GenericResult { status: status.into(), exception: message.into(), ..Default::default() };
        Self { result, ended_at: now.wall, ..Default::default() }
    }

    /// The end of a canceled input whose container did not report it.
    pub fn cancelled(task_id: &str, running: &Running, now: Now) -> Self {
        let end = Self::without_report(GenericStatus::Terminated, CANCELLED, now);
        Self { task_id: task_id.to_owned(), started_at: running.started_at, ..end }
    }
}

impl State {
    /// Checks that a function's queue has room for more inputs, before any of them is added.
    pub fn check_backlog(&self, function_id: &str, more: usize) -> Result<(), Error> {
        let backlog = self.queues.get(function_id).map_or(0, |queue| queue.len());
        if backlog + more > MAX_BACKLOG {
            return Err(Error::Backlog { id: function_id.to_owned(), limit: MAX_BACKLOG });
        }
        Ok(())
    }

    /// Adds an input to a call and queues it, unless the call has one with this index.
    pub fn add_input(
        &mut self,
        call_id: &str,
        idx: i32,
        arguments: pb::FunctionInput,
        now: Now,
    ) -> Result<String, Error> {
        let call = self.calls.get_mut(call_id).ok_or_else(|| Error::not_found("FunctionCall", call_id))?;
        if let Some(id) = call.input_ids.get(&idx) {
            // The response to the first try was lost.
            return Ok(id.clone());
        }
        let input = Input {
            id: new_id("in"),
            call_id: call_id.to_owned(),
            function_id: call.function_id.clone(),
            idx,
            retry_count: 0,
            retries_used: 0,
            crashes: 0,
            created_at: now.wall,
            not_before: None,
            queued: Some(now.mono),
            transient: call.transient,
            task_id: None,
            arguments,
        };
        call.unfinished.insert(input.id.clone());
        call.input_ids.insert(idx, input.id.clone());
        let id = input.id.clone();
        self.save_input(&input);
        self.queues.entry(input.function_id.clone()).or_default().push_back(id.clone());
        self.touch_for(&input.function_id);
        self.inputs.insert(id.clone(), input);
        Ok(id)
    }

    fn save_input(&mut self, input: &Input) {
        if !input.transient {
            self.save(input);
        }
    }

    /// Returns a container's input to the queue, before later ones.
    pub(super) fn requeue(&mut self, input_id: &str, delay: Option<Duration>, now: Now) {
        let Some(input) = self.inputs.get_mut(input_id) else { return };
        input.task_id = None;
        input.retry_count += 1;
        input.not_before = delay.map(|delay| now.mono + delay);
        input.queued = Some(now.mono);
        let input = input.clone();
        self.save_input(&input);
        self.queues.entry(input.function_id).or_default().push_front(input.id);
        self.touch();
    }

    /// Ends an attempt: with another one if it failed and the function's policy allows that, otherwise with an output.
    pub(super) fn end_attempt(&mut self, input_id: &str, attempt: Attempt, now: Now) {
        let Some(input) = self.inputs.get_mut(input_id) else { return };
        let retryable = matches!(attempt.result.status(), GenericStatus::Failure | GenericStatus::Timeout);
        let policy = self
            .functions
            .get(&input.function_id)
            .and_then(|f| self.definitions.get(f.live.as_ref()?))
            .and_then(|d| d.function.retry_policy);
        match policy {
            // The messages of a web request were read already.
            Some(policy) if retryable && !input.transient && input.retries_used < policy.retries => {
                input.retries_used += 1;
                let delay = retry_delay(&policy, input.retries_used);
                self.requeue(input_id, Some(delay), now);
            }
            _ => self.finish_input(input_id, attempt),
        }
    }

    /// Ends a delivery whose container died by itself. As on Modal, inputs of deployed apps run again after growing
    /// pauses, and those of other apps fail. Returns the log entry about an input that runs again.
    pub(super) fn end_crashed(&mut self, input_id: &str, how: &str, now: Now) -> Option<CrashNote> {
        let input = self.inputs.get(input_id)?;
        let app = self.functions.get(&input.function_id).and_then(|function| self.apps.get(&function.app_id));
        let is_build = self.live_definition(&input.function_id).is_some_and(|d| d.function.is_builder_function);
        let goes_on = app.is_some_and(|app| app.state() == AppState::Deployed) && !is_build;
        let input = self.inputs.get_mut(input_id)?;
        input.crashes += 1;
        let happened = format!("the container {how} while it ran this input");
        if goes_on || input.crashes < MAX_CRASHES {
            let delay = crash_delay(input.crashes);
            let text = format!("{happened}; it runs again in {} s\n", delay.as_secs());
            let note = CrashNote { call_id: input.call_id.clone(), input_id: input_id.to_owned(), text };
            self.requeue(input_id, Some(delay), now);
            Some(note)
        } else {
            let message = format!("{happened}, {MAX_CRASHES} times in a row");
            self.finish_input(input_id, Attempt::without_report(GenericStatus::InternalFailure, message, now));
            None
        }
    }

    /// Ends inputs of a function before a container has them.
    pub(super) fn finish_waiting(&mut self, function_id: &str, inputs: &BTreeSet<String>, attempt: &Attempt) {
        if let Some(queue) = self.queues.get_mut(function_id) {
            queue.retain(|id| !inputs.contains(id));
        }
        for id in inputs {
            self.finish_input(id, attempt.clone());
        }
    }

    /// Replaces an input that is in no queue by its output.
    pub(super) fn finish_input(&mut self, input_id: &str, attempt: Attempt) {
        let Some(input) = self.inputs.remove(input_id) else { return };
        if !input.transient {
            self.forget::<Input>(input_id);
        }
        self.touch_for(&input.call_id);
        let Some(call) = self.calls.get_mut(&input.call_id) else { return };
        call.unfinished.remove(input_id);
        let item = pb::FunctionGetOutputsItem {
            result: Some(attempt.result),
            idx: input.idx,
            input_id: input.id.clone(),
            data_format: attempt.data_format,
            task_id: attempt.task_id,
            input_started_at: attempt.started_at,
            output_created_at: attempt.ended_at,
            // The SDK counts the retries that it has made, and drops outputs with another count. The server makes all
            // retries, so the SDK's count is 0.
            retry_count: 0,
            ..Default::default()
        };
        let output = Output {
            input_id: input.id,
            call_id: input.call_id,
            sequence: u32::try_from(call.outputs.len()).unwrap_or(u32::MAX),
            idx: input.idx,
            encoded: item.encode_to_vec().into(),
        };
        let transient = call.transient;
        // Most calls have one output, and there are many of them.
        if call.outputs.is_empty() {
            call.outputs.reserve_exact(1);
        }
        call.outputs.push(output.clone());
        if !transient {
            self.save(&output);
        }
    }

    /// Ends every waiting input of a function and retires its containers.
    pub(super) fn terminate_function(&mut self, function_id: &str, reason: &'static str, now: Now) {
        let inputs: BTreeSet<String> =
            self.inputs.values().filter(|i| i.function_id == function_id).map(|i| i.id.clone()).collect();
        let end = Attempt::without_report(GenericStatus::Terminated, reason, now);
        self.finish_waiting(function_id, &inputs, &end);
        self.requested_servers.remove(function_id);
        for task in self.tasks.values_mut().filter(|t| t.definition.function_id == function_id) {
            task.interrupt();
        }
    }
}

fn crash_delay(crashes: u32) -> Duration {
    Duration::from_secs(1 << (crashes - 1).min(31)).min(LONGEST_CRASH_DELAY)
}

fn retry_delay(policy: &pb::FunctionRetryPolicy, retry: u32) -> Duration {
    let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
    let factor = f64::from(policy.backoff_coefficient.max(1.0)).powi(exponent);
    let limit = if policy.max_delay_ms == 0 { f64::from(u32::MAX) } else { f64::from(policy.max_delay_ms) };
    let millis = (f64::from(policy.initial_delay_ms) * factor).min(limit);
    Duration::from_secs_f64(millis / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_delay_grows_up_to_the_limit() {
        let policy = pb::FunctionRetryPolicy {
            backoff_coefficient: 2.0,
            initial_delay_ms: 1_000,
            max_delay_ms: 3_000,
            retries: 9,
        };
        let delays: Vec<u64> = (1..=4).map(|n| retry_delay(&policy, n).as_secs()).collect();
        assert_eq!(delays, [1, 2, 3, 3]);
        assert!(retry_delay(&policy, 2_000).as_secs() == 3);
    }
}
