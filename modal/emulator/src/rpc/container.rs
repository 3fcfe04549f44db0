//! RPCs of containers, and about them.

use std::time::{Duration, Instant};

use modal_proto::{self as pb, DataFormat};

use super::Parts;
use crate::{
    error::Error,
    state::{Delivery, Task},
};

/// How long a heartbeat waits for something to cancel; the SDK gives it 15 s.
const HEARTBEAT_POLL: Duration = Duration::from_secs(10);

/// A container has started, and begins to run the user's code.
pub fn hello(shared: &Parts, task_id: &str) -> Result<(), Error> {
    shared.change_soon(|state, _| state.task_mut(task_id).map(|task| task.runs_user_code = true))
}

/// A container of a server has started to serve, and handles requests to end.
pub fn server_ready(shared: &Parts, task_id: &str) -> Result<(), Error> {
    shared.change_soon(|state, _| state.server_entered(task_id));
    Ok(())
}

pub async fn heartbeat(shared: &Parts, task_id: &str) -> Result<pb::ContainerHeartbeatResponse, Error> {
    let until = Instant::now() + HEARTBEAT_POLL;
    let cancelled = shared
        .wait_for(task_id, Some(until), |state, _| {
            let cancelled = std::mem::take(&mut state.task_mut(task_id)?.cancelled);
            Ok((!cancelled.is_empty()).then_some(cancelled))
        })
        .await?;
    let event = cancelled.map(|input_ids| pb::CancelInputEvent {
        input_ids,
        terminate_containers: false,
        cancellation_reason: "the call was cancelled".to_owned(),
    });
    Ok(pb::ContainerHeartbeatResponse { cancel_input_event: event })
}

pub async fn get_inputs(shared: &Parts, task_id: &str) -> Result<pb::FunctionGetInputsResponse, Error> {
    let function_id = shared.read(|state| state.function_of_task(task_id).map(str::to_owned))?;
    let mut linger = None;
    let inputs = loop {
        let delivery = shared
            .wait_for(&function_id, linger, |state, now| match state.take_inputs(task_id, now)? {
                // More inputs came, but still less than a batch.
                Some(Delivery::Linger(_)) if linger.is_some() => Ok(None),
                delivery => Ok(delivery),
            })
            .await?;
        match delivery {
            Some(Delivery::Work(inputs)) => break inputs,
            Some(Delivery::Stop) => break vec![pb::FunctionGetInputsItem { kill_switch: true, ..Default::default() }],
            Some(Delivery::Linger(until)) => linger = Some(until),
            // The time for the batch to fill up is over.
            None => linger = None,
        }
    };
    Ok(pb::FunctionGetInputsResponse { inputs, rate_limit_sleep_duration: 0.0 })
}

pub async fn put_outputs(shared: &Parts, task_id: &str, request: pb::FunctionPutOutputsRequest) -> Result<(), Error> {
    for output in &request.outputs {
        // A generator has not ended before its values are durable.
        if output.data_format() == DataFormat::GeneratorDone
            && let Some(call_id) = shared.read(|s| s.inputs.get(&output.input_id).map(|input| input.call_id.clone()))
        {
            shared.streams.sync(&call_id).await?;
        }
    }
    shared
        .change(|state, now| {
            for output in request.outputs {
                state.put_output(task_id, output, now)?;
            }
            Ok(())
        })
        .await
}

pub async fn task_result(shared: &Parts, task_id: &str, request: pb::TaskResultRequest) -> Result<(), Error> {
    let result = request.result.unwrap_or_default();
    shared.change(|state, now| state.task_failed(task_id, result, now)).await
}

/// How many inputs a container may run at once: more than its target only if there can be no more containers.
pub fn dynamic_concurrency(shared: &Parts, task_id: &str) -> Result<pb::FunctionGetDynamicConcurrencyResponse, Error> {
    let concurrency = shared.read(|state| {
        let definition = &state.tasks.get(task_id).ok_or(Error::NotAContainer)?.definition;
        let most = state.is_at_limit(definition);
        Ok::<_, Error>(if most { definition.concurrency() } else { definition.target_concurrency() })
    })?;
    let concurrency = u32::try_from(concurrency).unwrap_or(u32::MAX);
    Ok(pb::FunctionGetDynamicConcurrencyResponse { concurrency })
}

pub fn list(shared: &Parts, request: &pb::TaskListRequest) -> pb::TaskListResponse {
    let environment = crate::state::environment(&request.environment_name);
    shared.read(|state| {
        let stats = |task: &Task| {
            let app = state.app(&task.definition.app_id).ok()?;
            let wanted = app.environment == environment && (request.app_id.is_empty() || request.app_id == app.id);
            wanted.then(|| pb::TaskStats {
                task_id: task.id.clone(),
                app_id: app.id.clone(),
                app_description: app.description.clone(),
                started_at: task.started_at,
                enqueued_at: task.started_at,
            })
        };
        pb::TaskListResponse { tasks: state.tasks.values().filter_map(stats).collect() }
    })
}

pub async fn stop(shared: &Parts, request: pb::ContainerStopRequest) -> Result<pb::ContainerStopResponse, Error> {
    shared.change(|state, _| state.stop_task(&request.task_id, request.graceful)).await?;
    Ok(pb::ContainerStopResponse {})
}
