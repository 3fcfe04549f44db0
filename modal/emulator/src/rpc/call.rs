//! Function calls, from the caller's side.

use std::time::{Duration, Instant};

use modal_proto as pb;

use super::{Parts, blob, seconds};
use crate::{
    error::Error,
    state::{CallOrigin, Now, OutputsQuery, State},
};

/// The longest that one request for outputs waits. The SDK repeats it.
const LONGEST_POLL: Duration = Duration::from_secs(60);
/// How long a response waits for more results, unless it completes the call: one response for each result of a large
/// map would cost the client more than the work itself.
const GATHERING: Duration = Duration::from_millis(20);

pub async fn map(
    shared: &Parts,
    request_key: Option<&str>,
    request: pb::FunctionMapRequest,
) -> Result<pb::FunctionMapResponse, Error> {
    blob::check_arguments(shared, &request.pipelined_inputs)?;
    shared
        .change(|state, now| {
            let (call_id, inputs) = match state.repeated_call(request_key) {
                // The response to the first try was lost; the call must not run twice.
                Some((call_id, inputs)) => {
                    let answer = |(idx, input_id): (i32, String)| added(idx, input_id);
                    (call_id, inputs.into_iter().map(answer).collect())
                }
                None => {
                    let (function_id, invocation) = (&request.function_id, request.function_call_invocation_type);
                    let parent = Some(request.parent_input_id).filter(|id| !id.is_empty());
                    let origin = CallOrigin {
                        request_key: request_key.map(str::to_owned),
                        parent_input_id: parent,
                        ..CallOrigin::default()
                    };
                    state.check_backlog(function_id, request.pipelined_inputs.len())?;
                    let call_id = state.begin_call(function_id, invocation, origin, now)?;
                    let inputs = add_inputs(state, &call_id, request.pipelined_inputs, now)?;
                    (call_id, inputs)
                }
            };
            let definition = state.live_definition(&request.function_id);
            Ok(pb::FunctionMapResponse {
                function_call_jwt: call_id.clone(),
                function_call_id: call_id,
                pipelined_inputs: inputs,
                retry_policy: definition.and_then(|d| d.function.retry_policy),
                // The server makes retries, because it outlives the caller.
                sync_client_retries_enabled: false,
                max_inputs_outstanding: 1_000,
            })
        })
        .await
}

pub async fn put_inputs(
    shared: &Parts,
    request: pb::FunctionPutInputsRequest,
) -> Result<pb::FunctionPutInputsResponse, Error> {
    blob::check_arguments(shared, &request.inputs)?;
    let inputs = shared
        .change(|state, now| {
            let function_id = &state.call(&request.function_call_id)?.function_id;
            state.check_backlog(function_id, request.inputs.len())?;
            add_inputs(state, &request.function_call_id, request.inputs, now)
        })
        .await?;
    Ok(pb::FunctionPutInputsResponse { inputs })
}

fn add_inputs(
    state: &mut State,
    call_id: &str,
    items: Vec<pb::FunctionPutInputsItem>,
    now: Now,
) -> Result<Vec<pb::FunctionPutInputsResponseItem>, Error> {
    let add = |item: pb::FunctionPutInputsItem| {
        let input_id = state.add_input(call_id, item.idx, item.input.unwrap_or_default(), now)?;
        Ok(added(item.idx, input_id))
    };
    items.into_iter().map(add).collect()
}

fn added(idx: i32, input_id: String) -> pb::FunctionPutInputsResponseItem {
    pb::FunctionPutInputsResponseItem { idx, input_jwt: input_id.clone(), input_id }
}

pub fn finish_inputs(shared: &Parts, request: &pb::FunctionFinishInputsRequest) -> Result<(), Error> {
    // A call has as many inputs as were added; that no more will come changes nothing here.
    shared.read(|state| state.call(&request.function_call_id).map(|_| ()))
}

pub async fn get_outputs(
    shared: &Parts,
    request: pb::FunctionGetOutputsRequest,
) -> Result<pb::FunctionGetOutputsResponse, Error> {
    let query = match (request.start_idx, request.end_idx) {
        (Some(start), end) => OutputsQuery::Range(start, end.unwrap_or(start)),
        (None, _) => {
            let limit = usize::try_from(request.max_values).ok().filter(|n| *n > 0).unwrap_or(usize::MAX);
            OutputsQuery::After(position(&request.last_entry_id), limit)
        }
    };
    let until = Instant::now() + seconds(request.timeout).min(LONGEST_POLL);
    let call_id = &request.function_call_id;
    let found = shared
        .wait_for(call_id, Some(until), |state, _| {
            let reply = state.outputs(call_id, query)?;
            Ok((!reply.items.is_empty()).then_some(reply))
        })
        .await?;
    let reply = match found {
        Some(reply) if reply.unfinished == 0 => reply,
        found => {
            if found.is_some() {
                let until = Some(until.min(Instant::now() + GATHERING));
                let complete = |state: &mut State, _| Ok(state.call(call_id)?.unfinished.is_empty().then_some(()));
                shared.wait_for(call_id, until, complete).await?;
            }
            shared.read(|state| state.outputs(call_id, query))?
        }
    };
    // A result that a client has seen must stay the same after a crash.
    shared.synced().await?;
    Ok(pb::FunctionGetOutputsResponse {
        idxs: reply.items.iter().map(|item| item.idx).collect(),
        outputs: reply.items,
        last_entry_id: format!("{}-0", reply.position),
        num_unfinished_inputs: i32::try_from(reply.unfinished).unwrap_or(i32::MAX),
    })
}

/// How many outputs a client has seen, by the entry id of the last one; "0-0" at first.
fn position(entry_id: &str) -> usize {
    entry_id.split('-').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

pub async fn cancel(shared: &Parts, request: pb::FunctionCallCancelRequest) -> Result<(), Error> {
    let terminate = request.terminate_containers;
    shared.change(|state, now| state.cancel_call(&request.function_call_id, terminate, now)).await
}

pub fn from_id(
    shared: &Parts,
    request: &pb::FunctionCallFromIdRequest,
) -> Result<pb::FunctionCallFromIdResponse, Error> {
    shared.read(|state| {
        let call = state.call(&request.function_call_id)?;
        Ok(pb::FunctionCallFromIdResponse {
            function_call_id: call.id.clone(),
            num_inputs: i32::try_from(call.unfinished.len() + call.outputs.len()).unwrap_or(i32::MAX),
            metadata: Some(pb::FunctionCallHandleMetadata {
                app_id: call.app_id.clone(),
                function_id: call.function_id.clone(),
            }),
        })
    })
}

pub fn graph(
    shared: &Parts,
    request: &pb::FunctionGetCallGraphRequest,
) -> Result<pb::FunctionGetCallGraphResponse, Error> {
    shared.read(|state| state.call_graph(&request.function_call_id))
}
