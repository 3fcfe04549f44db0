//! Function calls: creation, results, cancellation and expiry.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use modal_proto::{self as pb, FunctionCallInvocationType, generic_result::GenericStatus};
use serde::{Deserialize, Serialize};

use super::{Now, Output, State, input::Attempt, task::CANCELLED};
use crate::{error::Error, ids::new_id, store::Record};

/// How long results are kept, as on Modal.
const RESULTS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// A caller that waits for its result fetches it long before this.
const SYNC_RESULTS_KEPT: Duration = Duration::from_secs(3600);
/// The most finished calls that are kept, whatever their age.
const FINISHED_CALLS: usize = 20_000;

/// One call: a single input, or the many of a map.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    pub id: String,
    pub function_id: String,
    pub app_id: String,
    /// `FunctionCallInvocationType` on the wire.
    pub invocation: i32,
    pub created_at: f64,
    /// The key with which its client would repeat the request that made it.
    #[serde(default)]
    pub request_key: Option<String>,
    /// The input whose code made the call.
    #[serde(default)]
    pub parent_input_id: Option<String>,
    /// The hashes of the blobs that its generator yielded.
    #[serde(default)]
    pub yielded_files: Vec<String>,
    /// Whether a schedule made it, so that no client knows its id.
    #[serde(default)]
    pub scheduled: bool,
    /// Whether it is a web request, which ends with its connection.
    #[serde(skip)]
    pub transient: bool,
    /// The ids of its inputs by their indexes.
    #[serde(skip)]
    pub input_ids: HashMap<i32, String>,
    /// Inputs that have no output yet.
    #[serde(skip)]
    pub unfinished: BTreeSet<String>,
    /// Outputs in the order in which they arrived.
    #[serde(skip)]
    pub outputs: Vec<Output>,
}

impl Record for Call {
    const KIND: &'static str = "call";
    fn id(&self) -> &str {
        &self.id
    }
}

impl Call {
    fn kept(&self) -> Duration {
        use FunctionCallInvocationType::{Sync, SyncLegacy};
        // The older name is that of generators.
        let is_sync = [Sync as i32, SyncLegacy as i32].contains(&self.invocation);
        if is_sync || self.scheduled { SYNC_RESULTS_KEPT } else { RESULTS_KEPT }
    }

    /// Whether it is complete. A call without inputs may still get some, unless it is old.
    fn is_finished(&self, now: Now) -> bool {
        let old = || self.created_at + SYNC_RESULTS_KEPT.as_secs_f64() < now.wall;
        self.unfinished.is_empty() && (!self.outputs.is_empty() || old())
    }
}

/// The origin of a call.
#[derive(Debug, Default)]
pub struct CallOrigin {
    /// The key with which the client would repeat its request.
    pub request_key: Option<String>,
    /// The input whose code makes the call.
    pub parent_input_id: Option<String>,
    /// Whether a schedule makes the call.
    pub scheduled: bool,
}

/// About how many bytes of a call's results go into one response; the caller asks for the rest.
const RESPONSE_BYTES: usize = 32 << 20;

/// Which outputs of a call are wanted.
#[derive(Debug, Clone, Copy)]
pub enum OutputsQuery {
    /// Those of inputs in this range of indexes, ends included.
    Range(i32, i32),
    /// Those after the first so many outputs; at most as many as the second number, or as fit into a response.
    After(usize, usize),
}

/// Outputs, and how many inputs have none yet.
#[derive(Debug)]
pub struct OutputsReply {
    pub items: Vec<pb::FunctionGetOutputsItem>,
    pub unfinished: usize,
    /// The position to ask for next with [`OutputsQuery::After`].
    pub position: usize,
}

impl State {
    /// The call of an id.
    pub fn call(&self, id: &str) -> Result<&Call, Error> {
        self.calls.get(id).ok_or_else(|| Error::not_found("FunctionCall", id))
    }

    /// The call that an earlier try of the same request made, with the indexes and ids of its inputs.
    pub fn repeated_call(&self, request_key: Option<&str>) -> Option<(String, Vec<(i32, String)>)> {
        let call = self.calls.get(self.call_keys.get(request_key?)?)?;
        Some((call.id.clone(), call.input_ids.iter().map(|(idx, id)| (*idx, id.clone())).collect()))
    }

    /// Begins a call of a function.
    pub fn begin_call(
        &mut self,
        function_id: &str,
        invocation: i32,
        origin: CallOrigin,
        now: Now,
    ) -> Result<String, Error> {
        let CallOrigin { request_key, parent_input_id, scheduled } = origin;
        let call = Call { request_key, parent_input_id, scheduled, ..self.new_call(function_id, invocation, now)? };
        let id = call.id.clone();
        if let Some(key) = &call.request_key {
            self.call_keys.insert(key.clone(), id.clone());
        }
        self.save(&call);
        self.calls.insert(id.clone(), call);
        Ok(id)
    }

    pub(super) fn new_call(&self, function_id: &str, invocation: i32, now: Now) -> Result<Call, Error> {
        if self.closing {
            return Err(Error::ShuttingDown);
        }
        let function = self.function(function_id)?;
        Ok(Call {
            id: new_id("fc"),
            function_id: function_id.to_owned(),
            app_id: function.app_id.clone(),
            invocation,
            created_at: now.wall,
            request_key: None,
            yielded_files: Vec::new(),
            parent_input_id: None,
            scheduled: false,
            transient: false,
            input_ids: HashMap::new(),
            unfinished: BTreeSet::new(),
            outputs: Vec::new(),
        })
    }

    /// The existing outputs of a call that a query asks for.
    pub fn outputs(&self, call_id: &str, query: OutputsQuery) -> Result<OutputsReply, Error> {
        let call = self.call(call_id)?;
        let mut position = call.outputs.len();
        let items = match query {
            OutputsQuery::Range(start, end) => {
                let wanted = call.outputs.iter().filter(|output| (start..=end).contains(&output.idx));
                wanted.map(Output::item).collect()
            }
            OutputsQuery::After(first, limit) => {
                let mut bytes = 0;
                let has_room = |output: &&Output| {
                    let room = bytes < RESPONSE_BYTES;
                    bytes += output.encoded_len();
                    room
                };
                let outputs = call.outputs.iter().skip(first).take(limit).take_while(has_room);
                let wanted: Vec<_> = outputs.map(Output::item).collect();
                position = (first + wanted.len()).min(position);
                wanted
            }
        };
        Ok(OutputsReply { items, unfinished: call.unfinished.len(), position })
    }

    /// Keeps blobs that the generator of a call yielded as long as the call.
    pub fn keep_yielded(&mut self, call_id: &str, hashes: Vec<String>) -> Result<(), Error> {
        let call = self.calls.get_mut(call_id).ok_or_else(|| Error::not_found("FunctionCall", call_id))?;
        call.yielded_files.extend(hashes);
        let call = call.clone();
        self.save(&call);
        Ok(())
    }

    /// Cancels a call. Waiting inputs end at once; running ones end when their container reports that, or is stopped.
    pub fn cancel_call(&mut self, call_id: &str, terminate_containers: bool, now: Now) -> Result<(), Error> {
        let call = self.calls.get(call_id).ok_or_else(|| Error::not_found("FunctionCall", call_id))?;
        let function_id = call.function_id.clone();
        let mut waiting = BTreeSet::new();
        for input in call.unfinished.iter().filter_map(|id| self.inputs.get(id)) {
            match input.task_id.as_ref().and_then(|id| self.tasks.get_mut(id)) {
                Some(task) => task.cancel_input(&input.id, terminate_containers, now),
                None => drop(waiting.insert(input.id.clone())),
            }
        }
        let end = Attempt::without_report(GenericStatus::Terminated, CANCELLED, now);
        self.finish_waiting(&function_id, &waiting, &end);
        self.touch();
        Ok(())
    }

    /// Forgets finished calls that are too old, and the oldest if there are too many.
    pub(super) fn forget_old_calls(&mut self, now: Now) {
        // Ids sort by age.
        let finished: Vec<&Call> = self.calls.values().filter(|c| c.is_finished(now) && !c.transient).collect();
        let surplus = finished.len().saturating_sub(FINISHED_CALLS);
        let old: Vec<String> = finished
            .iter()
            .enumerate()
            .filter(|(n, call)| *n < surplus || call.created_at + call.kept().as_secs_f64() < now.wall)
            .map(|(_, call)| call.id.clone())
            .collect();
        for id in old {
            let Some(call) = self.calls.remove(&id) else { continue };
            self.forget::<Call>(&id);
            if let Some(key) = &call.request_key {
                self.call_keys.remove(key);
            }
            for output in &call.outputs {
                self.forget::<Output>(&output.input_id);
            }
            self.forgotten_calls.push(id);
        }
    }
}
