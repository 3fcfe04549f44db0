//! The rules of inputs that run more than once.

use modal_proto::{self as pb, FunctionCallInvocationType, generic_result::GenericStatus};

use super::{Caller, OutputsQuery, World, function};

fn retried(retries: u32) -> pb::Function {
    let policy = pb::FunctionRetryPolicy { retries, ..Default::default() };
    pb::Function { retry_policy: Some(policy), concurrency_limit: 1, ..function() }
}

/// A map of two inputs, of which the first is to run again.
fn map(world: &mut World) -> String {
    let (function_id, now) = (world.function_id.clone(), world.now());
    let sync = FunctionCallInvocationType::Sync.into();
    let call_id = world.state.begin_call(&function_id, sync, Caller::default(), now).unwrap();
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
