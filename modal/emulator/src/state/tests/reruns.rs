//! The rules of inputs that run more than once.

use modal_proto::{self as pb, AppState, FunctionCallInvocationType, generic_result::GenericStatus};

use super::{CallOrigin, OutputsQuery, World, function};

fn retried(retries: u32) -> pb::Function {
    let policy = pb::FunctionRetryPolicy { retries, ..Default::default() };
    pb::Function { retry_policy: Some(policy), concurrency_limit: 1, ..function() }
}

/// A map of two inputs, of which the first is to run again.
fn map(world: &mut World) -> String {
    let (function_id, now) = (world.function_id.clone(), world.now());
    let sync = FunctionCallInvocationType::Sync.into();
    let call_id = world.state.begin_call(&function_id, sync, CallOrigin::default(), now).unwrap();
    for idx in 0..2 {
        world.state.add_input(&call_id, idx, pb::FunctionInput::default(), now).unwrap();
    }
    call_id
}

/// The places, statuses and retry counts of a call's outputs.
fn outputs(world: &World, call_id: &str) -> Vec<(i32, GenericStatus, u32)> {
    let reply = world.state.outputs(call_id, OutputsQuery::After(0, usize::MAX)).unwrap();
    let status = |item: &pb::FunctionGetOutputsItem| item.result.as_ref().unwrap().status();
    reply.items.iter().map(|item| (item.idx, status(item), item.retry_count)).collect()
}

#[test]
fn outputs_of_reruns_have_the_retry_count_that_the_sdk_expects() {
    let mut world = World::new(retried(1));
    let call_id = map(&mut world);
    let task = world.started().remove(0);
    let first = world.work(&task);
    world.put(&task, &first.input_id, GenericStatus::Failure);
    let again = world.work(&task);
    assert_eq!((again.input_id.as_str(), again.retry_count), (first.input_id.as_str(), 1));
    world.put(&task, &again.input_id, GenericStatus::Success);
    let second = world.work(&task);
    world.exit(&task);
    world.pass(1);
    let task = world.started().remove(0);
    assert_eq!(world.work(&task).retry_count, 1);
    world.put(&task, &second.input_id, GenericStatus::Success);
    assert_eq!(outputs(&world, &call_id), [(0, GenericStatus::Success, 0), (1, GenericStatus::Success, 0)]);
    world.restart();
    assert_eq!(outputs(&world, &call_id).len(), 2);
}

#[test]
fn repeated_result_of_an_earlier_delivery_is_dropped() {
    let mut world = World::new(retried(2));
    let call_id = map(&mut world);
    let task = world.started().remove(0);
    let input_id = world.work(&task).input_id;
    for delivery in 0..2 {
        world.put_of_delivery(&task, &input_id, delivery, GenericStatus::Failure);
        assert_eq!(world.work(&task).retry_count, delivery + 1);
        world.put_of_delivery(&task, &input_id, delivery, GenericStatus::Failure);
        assert!(outputs(&world, &call_id).is_empty(), "the answer to the first report got lost");
    }
    world.put_of_delivery(&task, &input_id, 2, GenericStatus::Failure);
    assert_eq!(outputs(&world, &call_id), [(0, GenericStatus::Failure, 0)]);
}

#[test]
fn result_of_a_container_that_lost_its_input_is_dropped() {
    let mut world = World::new(retried(0));
    let call_id = map(&mut world);
    let old = world.started().remove(0);
    let input_id = world.work(&old).input_id;
    world.exit(&old);
    world.pass(1);
    let new = world.started().remove(0);
    assert_eq!(world.work(&new).input_id, input_id);
    let late = pb::FunctionPutOutputsItem { input_id: input_id.clone(), ..Default::default() };
    let now = world.now();
    assert!(world.state.put_output(&old, late, now).is_err());
    assert!(outputs(&world, &call_id).is_empty());
    world.put(&new, &input_id, GenericStatus::Success);
    world.put(&new, &input_id, GenericStatus::Failure);
    assert_eq!(outputs(&world, &call_id), [(0, GenericStatus::Success, 0)]);
}

/// A function that runs this many inputs at once in one container, each a batch of this size.
fn concurrent(inputs: u32, batch: u32) -> pb::Function {
    pb::Function { max_concurrent_inputs: inputs, batch_max_size: batch, concurrency_limit: 1, ..function() }
}

#[test]
fn canceled_input_that_keeps_running_ends_without_the_others() {
    let mut world = World::new(concurrent(2, 0));
    let (first, second, third) = (world.call(), world.call(), world.call());
    let task = world.started().remove(0);
    let cancelled = world.work(&task);
    let neighbor = world.work(&task);
    let now = world.now();
    world.state.cancel_call(&first, false, now).unwrap();
    world.pass(9);
    assert!(world.signals().is_empty() && world.result(&first).is_none());
    world.pass(1);
    assert!(world.signals().is_empty(), "the neighbor goes on");
    assert_eq!(world.result(&first).unwrap().0, GenericStatus::Terminated);
    assert!(matches!(world.take(&task), Some(super::Delivery::Stop)), "its place stays taken");
    world.put(&task, &cancelled.input_id, GenericStatus::Success);
    assert_eq!(world.result(&first).unwrap().0, GenericStatus::Terminated, "too late");
    world.put(&task, &neighbor.input_id, GenericStatus::Success);
    assert_eq!(world.result(&second).unwrap().0, GenericStatus::Success);
    let other = world.state.tasks.keys().find(|id| **id != task).unwrap().clone();
    assert_eq!(world.work(&other).function_call_id, third);
    assert!(world.signals().is_empty());
    world.pass(30);
    assert_eq!(world.signals(), [(task, super::StopSignal::Interrupt)]);
}

#[test]
fn container_stops_when_all_inputs_ignore_cancellation() {
    let mut world = World::new(concurrent(2, 0));
    let calls = [world.call(), world.call()];
    let task = world.started().remove(0);
    for call_id in &calls {
        world.work(&task);
        let now = world.now();
        world.state.cancel_call(call_id, false, now).unwrap();
    }
    world.pass(10);
    assert_eq!(world.signals(), [(task.clone(), super::StopSignal::Interrupt)]);
    world.exit(&task);
    assert!(calls.iter().all(|call_id| world.result(call_id).unwrap().0 == GenericStatus::Terminated));
}

#[test]
fn rest_of_a_canceled_batch_runs_again() {
    let mut world = World::new(concurrent(1, 2));
    let (first, second) = (world.call(), world.call());
    let task = world.started().remove(0);
    let Some(super::Delivery::Work(batch)) = world.take(&task) else { panic!("no batch") };
    let now = world.now();
    world.state.cancel_call(&first, false, now).unwrap();
    for item in &batch {
        world.put(&task, &item.input_id, GenericStatus::Terminated);
    }
    assert_eq!(world.result(&first).unwrap().0, GenericStatus::Terminated);
    assert_eq!(world.result(&second), None);
    let again = world.work(&task);
    assert_eq!((again.input_id.as_str(), again.retry_count), (batch[1].input_id.as_str(), 1));
    // An input may say so by itself, without having been canceled.
    world.put(&task, &again.input_id, GenericStatus::Terminated);
    assert_eq!(world.result(&second).unwrap().0, GenericStatus::Terminated);
}

#[test]
fn deployed_app_replaces_dead_containers_with_backoff() {
    let mut world = World::new(function());
    let call = world.call();
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        let task = world.started().remove(0);
        world.work(&task);
        world.exit(&task);
        world.pass(pause - 1);
        assert!(world.started().is_empty(), "less than {pause} s");
        world.pass(1);
    }
    assert_eq!(world.result(&call), None);
    let task = world.started().remove(0);
    let input_id = world.work(&task).input_id;
    world.put(&task, &input_id, GenericStatus::Success);
    assert_eq!(world.result(&call).unwrap().0, GenericStatus::Success);
}

#[test]
fn input_of_an_ephemeral_app_fails_after_three_dead_containers() {
    let mut world = World::new(function());
    let app = world.state.apps.get_mut(&world.app_id).unwrap();
    app.state = AppState::Ephemeral.into();
    let call = world.call();
    for retry_count in 0..3 {
        let task = world.started().remove(0);
        let item = world.work(&task);
        assert_eq!(item.retry_count, retry_count);
        assert_eq!(item.function_call_id, call);
        world.exit(&task);
        world.pass(5);
    }
    let (status, message) = world.result(&call).unwrap();
    assert_eq!(status, GenericStatus::InternalFailure);
    assert!(message.contains("exited with code 0"), "{message}");
}
