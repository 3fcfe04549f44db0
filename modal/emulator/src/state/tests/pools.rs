//! The rules of batches, of concurrency, of how many containers there are, and of bound functions.

use modal_proto::{self as pb, AutoscalerSettings, FunctionOptions, generic_result::GenericStatus};

use super::{Delivery, World, function};

fn inputs(delivery: Option<Delivery>) -> Vec<String> {
    match delivery {
        Some(Delivery::Work(items)) => items.into_iter().map(|item| item.input_id).collect(),
        other => panic!("no work but {other:?}"),
    }
}

fn stats(world: &World) -> (u32, u32, u32) {
    let stats = world.state.function_stats(&world.function_id).unwrap();
    (stats.backlog, stats.num_total_tasks, stats.num_running_inputs)
}

#[test]
fn batch_is_delivered_when_full_or_after_the_wait_time() {
    let mut world = World::new(pb::Function { batch_max_size: 2, batch_linger_ms: 3_000, ..function() });
    world.call();
    let task = world.started().remove(0);
    assert!(matches!(world.take(&task), Some(Delivery::Linger(_))));
    world.pass(3);
    let first = inputs(world.take(&task));
    assert_eq!(first.len(), 1);
    assert_eq!(inputs(world.take(&task)), first, "the answer got lost");
    world.put(&task, &first[0], GenericStatus::Success);
    (0..3).for_each(|_| drop(world.call()));
    let full = inputs(world.take(&task));
    assert_eq!(full.len(), 2);
    world.put(&task, &full[0], GenericStatus::Success);
    assert_eq!(inputs(world.take(&task)), full[1..], "no new batch before all of this one is done");
    world.put(&task, &full[1], GenericStatus::Success);
    assert!(matches!(world.take(&task), Some(Delivery::Linger(_))));
}

#[test]
fn containers_scale_by_the_target_concurrency() {
    let mut world = World::new(pb::Function {
        max_concurrent_inputs: 5,
        target_concurrent_inputs: 2,
        concurrency_limit: 2,
        ..function()
    });
    (0..3).for_each(|_| drop(world.call()));
    let tasks = world.started();
    assert_eq!(tasks.len(), 2);
    (0..5).for_each(|_| drop(world.call()));
    assert!(world.started().is_empty(), "there may be no more");
    for _ in 0..5 {
        world.work(&tasks[0]);
    }
    assert!(world.take(&tasks[0]).is_none(), "five are the most");
    assert!(world.state.is_at_limit(&world.state.tasks[&tasks[0]].definition.clone()));
}

#[test]
fn buffer_containers_start_with_work_and_min_containers_stay() {
    let mut world = World::new(function());
    let settings = AutoscalerSettings {
        min_containers: Some(1),
        max_containers: Some(4),
        buffer_containers: Some(2),
        scaledown_window: Some(5),
        ..Default::default()
    };
    let function_id = world.function_id.clone();
    world.state.update_autoscaler(&function_id, &settings).unwrap();
    let first = world.started();
    assert_eq!(first.len(), 1, "without work, only the least");
    world.take(&first[0]);
    world.call();
    let item = world.work(&first[0]);
    let reserve = world.started();
    assert_eq!(reserve.len(), 2);
    reserve.iter().for_each(|task| drop(world.take(task)));
    world.pass(60);
    world.signals();
    assert_eq!(stats(&world), (0, 3, 1), "the reserve stays while there is work");
    world.put(&first[0], &item.input_id, GenericStatus::Success);
    world.pass(5);
    world.signals();
    let left = world.state.tasks.values().filter(|task| task.stop.is_none()).count();
    assert_eq!(left, 1);
    world.deploy(function());
    assert!(
        world.state.autoscaler_settings(world.state.live_definition(&function_id).unwrap()).min_containers.is_none()
    );
    assert!(
        world
            .state
            .update_autoscaler(&function_id, &AutoscalerSettings { min_containers: Some(9), ..settings })
            .is_err()
    );
}

#[test]
fn bound_function_is_updated_and_removed_with_its_base() {
    let mut world = World::new(function());
    let options = FunctionOptions { concurrency_limit: Some(3), ..Default::default() };
    let request = pb::FunctionBindParamsRequest {
        function_id: world.function_id.clone(),
        serialized_params: "params".into(),
        function_options: Some(options),
    };
    let bound = world.state.bind_function(request.clone()).unwrap();
    assert_eq!(world.state.bind_function(request.clone()).unwrap().id, bound.id);
    let nested = pb::FunctionBindParamsRequest { function_id: bound.id.clone(), ..Default::default() };
    assert!(world.state.bind_function(nested).is_err());
    world.deploy(pb::Function { timeout_secs: 7, ..function() });
    world.restart();
    let definition = world.state.live_definition(&bound.id).unwrap();
    assert_eq!((definition.function.timeout_secs, definition.function.concurrency_limit), (7, 3));
    let base = world.state.live_definition(&world.function_id).unwrap();
    assert_eq!(world.state.tree_name(definition), world.state.tree_name(base));
    assert_eq!(world.state.function(&bound.id).unwrap().params(), "params");
    let (app_id, now) = (world.app_id.clone(), world.now());
    world.state.stop_app(&app_id, now).unwrap();
    assert!(world.state.functions.is_empty());
}

#[test]
fn web_request_is_not_stored_or_retried() {
    let mut world = World::new(function());
    let (function_id, now) = (world.function_id.clone(), world.now());
    world.state.take_changes();
    let taken = world.state.begin_request(&function_id, pb::FunctionInput::default(), now).unwrap();
    let waiting = world.state.begin_request(&function_id, pb::FunctionInput::default(), now).unwrap();
    let task = world.started().remove(0);
    world.work(&task);
    assert!(world.state.is_taken(&taken) && !world.state.is_taken(&waiting));
    world.state.abandon_request(&taken, now);
    world.state.abandon_request(&waiting, now);
    assert!(world.state.request_result(&taken).is_none(), "its container will end it");
    assert_eq!(world.state.request_result(&waiting).unwrap().status(), GenericStatus::Terminated);
    world.exit(&task);
    assert_eq!(world.state.request_result(&taken).unwrap().status(), GenericStatus::InternalFailure);
    world.state.forget_request(&taken);
    world.state.forget_request(&waiting);
    assert!(world.state.calls.is_empty() && world.state.take_changes().is_empty());
}
