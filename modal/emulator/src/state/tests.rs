//! The rules of calls and containers, tested without processes: time is a parameter.

mod pools;
mod reruns;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use modal_proto::{self as pb, AppState, FunctionCallInvocationType, generic_result::GenericStatus};
use prost::Message;

use super::{CallOrigin, Delivery, Now, OutputsQuery, Settings, State, StopSignal, TaskExit};
use crate::store::{Change, StoredRow};

const GRACE: Duration = Duration::from_secs(5);

/// A state with one deployed function, and a clock.
struct World {
    state: State,
    app_id: String,
    function_id: String,
    start: Instant,
    elapsed: Duration,
    rows: BTreeMap<(String, String), StoredRow>,
}

impl World {
    fn new(function: pb::Function) -> Self {
        let mut state = State::default();
        state.configure(Settings { default_max_containers: 8, stop_grace: GRACE });
        let mut world = Self {
            state,
            app_id: String::new(),
            function_id: String::new(),
            start: Instant::now(),
            elapsed: Duration::ZERO,
            rows: BTreeMap::new(),
        };
        let now = world.now();
        world.app_id = world.state.create_app("", "app", "", AppState::Initializing, now).unwrap().id;
        world.deploy(function);
        world
    }

    fn now(&self) -> Now {
        Now { wall: 1e9 + self.elapsed.as_secs_f64(), mono: self.start + self.elapsed }
    }

    fn pass(&mut self, seconds: u64) {
        self.elapsed += Duration::from_secs(seconds);
    }

    fn define(&mut self, function: &pb::Function) -> String {
        let (app_id, function_id) = (self.app_id.clone(), self.function_id.clone());
        let definition = self
            .state
            .define_function(&app_id, &function_id, function.encode_to_vec().into(), function.clone())
            .unwrap();
        self.function_id = definition.function_id.clone();
        definition.id.clone()
    }

    fn deploy(&mut self, function: pb::Function) -> String {
        let definition_id = self.define(&function);
        let request = pb::AppPublishRequest {
            app_id: self.app_id.clone(),
            name: "app".into(),
            app_state: AppState::Deployed.into(),
            function_ids: [("f".to_owned(), self.function_id.clone())].into(),
            definition_ids: [(self.function_id.clone(), definition_id.clone())].into(),
            ..Default::default()
        };
        let now = self.now();
        self.state.publish_app(request, now).unwrap();
        definition_id
    }

    fn call(&mut self) -> String {
        let (function_id, now) = (self.function_id.clone(), self.now());
        let call_id = self
            .state
            .begin_call(&function_id, FunctionCallInvocationType::Async.into(), CallOrigin::default(), now)
            .unwrap();
        self.state.add_input(&call_id, 0, pb::FunctionInput::default(), now).unwrap();
        call_id
    }

    fn started(&mut self) -> Vec<String> {
        let now = self.now();
        self.state.plan(now).start
    }

    fn signals(&mut self) -> Vec<(String, StopSignal)> {
        let now = self.now();
        self.state.plan(now).signal
    }

    fn take(&mut self, task_id: &str) -> Option<Delivery> {
        let now = self.now();
        self.state.take_inputs(task_id, now).unwrap()
    }

    fn work(&mut self, task_id: &str) -> pb::FunctionGetInputsItem {
        match self.take(task_id) {
            Some(Delivery::Work(mut items)) if items.len() == 1 => items.remove(0),
            other => panic!("no work but {other:?}"),
        }
    }

    /// Reports a result of the latest delivery of an input.
    fn put(&mut self, task_id: &str, input_id: &str, status: GenericStatus) {
        let retry_count = self.state.inputs.get(input_id).map_or(0, |input| input.retry_count);
        self.put_of_delivery(task_id, input_id, retry_count, status);
    }

    fn put_of_delivery(&mut self, task_id: &str, input_id: &str, retry_count: u32, status: GenericStatus) {
        let (input_id, result) = (input_id.into(), pb::GenericResult { status: status.into(), ..Default::default() });
        let output = pb::FunctionPutOutputsItem { input_id, retry_count, result: Some(result), ..Default::default() };
        let now = self.now();
        self.state.put_output(task_id, output, now).unwrap();
    }

    fn exit(&mut self, task_id: &str) {
        let now = self.now();
        let exit = TaskExit { how: "exited with code 0".into(), last_output: "last words".into() };
        self.state.task_exited(task_id, &exit, now);
    }

    fn result(&self, call_id: &str) -> Option<(GenericStatus, String)> {
        let reply = self.state.outputs(call_id, OutputsQuery::Range(0, 0)).unwrap();
        let result = reply.items.into_iter().next()?.result.unwrap();
        Some((result.status(), result.exception))
    }

    /// Saves and loads the state, like a restart.
    fn restart(&mut self) {
        for change in self.state.take_changes() {
            let (Change::Put { kind, id, .. } | Change::Delete { kind, id }) = &change;
            let key = ((*kind).to_owned(), id.clone());
            match StoredRow::after(change) {
                Some(row) => drop(self.rows.insert(key, row)),
                None => drop(self.rows.remove(&key)),
            }
        }
        let rows = std::mem::take(&mut self.rows).into_values().collect();
        self.state = State::load(rows, self.now()).unwrap();
        self.state.configure(Settings { default_max_containers: 8, stop_grace: GRACE });
    }
}

fn function() -> pb::Function {
    pb::Function { function_name: "f".into(), timeout_secs: 100, ..Default::default() }
}

#[test]
fn containers_are_limited_by_demand_and_concurrency_limit() {
    let mut world = World::new(pb::Function { concurrency_limit: 2, ..function() });
    assert!(world.started().is_empty());
    world.call();
    assert_eq!(world.started().len(), 1);
    assert!(world.started().is_empty(), "one that starts counts");
    for _ in 0..5 {
        world.call();
    }
    assert_eq!(world.started().len(), 1);
}

#[test]
fn output_read_after_the_result_belongs_to_the_input() {
    let mut world = World::new(function());
    let first = world.call();
    let task = world.started().remove(0);
    assert_eq!(world.state.input_of_output(&task), None, "it has had none");
    let input = world.work(&task).input_id;
    let belongs = Some((first, input.clone()));
    assert_eq!(world.state.input_of_output(&task), belongs);
    world.put(&task, &input, GenericStatus::Success);
    assert_eq!(world.state.input_of_output(&task), belongs);
    let second = world.call();
    let input = world.work(&task).input_id;
    assert_eq!(world.state.input_of_output(&task), Some((second, input.clone())));
    world.put(&task, &input, GenericStatus::Success);
    world.state.stop_task(&task, true).unwrap();
    assert_eq!(world.state.input_of_output(&task), None, "exit handlers belong to no input");
}

#[test]
fn timeout_is_reported_after_the_container_has_ended() {
    let mut world = World::new(function());
    let call = world.call();
    let task = world.started().remove(0);
    let item = world.work(&task);
    world.pass(101);
    assert_eq!(world.signals(), [(task.clone(), StopSignal::Interrupt)]);
    world.put(&task, &item.input_id, GenericStatus::Success);
    assert_eq!(world.result(&call), None, "too late");
    world.pass(GRACE.as_secs());
    assert_eq!(world.signals(), [(task.clone(), StopSignal::Kill)]);
    assert!(world.signals().is_empty());
    world.exit(&task);
    assert_eq!(world.result(&call).unwrap().0, GenericStatus::Timeout);
}

#[test]
fn failures_are_retried_by_the_retry_policy() {
    let policy = pb::FunctionRetryPolicy { retries: 1, initial_delay_ms: 2_000, ..Default::default() };
    let mut world = World::new(pb::Function { retry_policy: Some(policy), ..function() });
    let call = world.call();
    let task = world.started().remove(0);
    let first = world.work(&task);
    world.put(&task, &first.input_id, GenericStatus::Failure);
    assert!(world.take(&task).is_none(), "not before the delay is over");
    world.state.take_notice();
    world.pass(2);
    world.started();
    assert!(world.state.take_notice().all, "the idle container is woken");
    let second = world.work(&task);
    assert_eq!((second.input_id.as_str(), second.retry_count), (first.input_id.as_str(), 1));
    world.put(&task, &second.input_id, GenericStatus::Failure);
    assert_eq!(world.result(&call).unwrap().0, GenericStatus::Failure);
}

#[test]
fn lost_delivery_is_repeated() {
    let mut world = World::new(function());
    world.call();
    world.call();
    let task = world.started().remove(0);
    let first = world.work(&task);
    assert_eq!(world.work(&task).input_id, first.input_id);
}

#[test]
fn canceled_inputs_end_at_once_or_with_their_container() {
    let mut world = World::new(pb::Function { concurrency_limit: 1, ..function() });
    let (running, waiting) = (world.call(), world.call());
    let task = world.started().remove(0);
    let item = world.work(&task);
    let now = world.now();
    world.state.cancel_call(&waiting, false, now).unwrap();
    assert_eq!(world.result(&waiting).unwrap().0, GenericStatus::Terminated);
    world.state.cancel_call(&running, false, now).unwrap();
    assert_eq!(world.state.task_mut(&task).unwrap().cancelled, [item.input_id]);
    world.pass(10);
    assert_eq!(world.signals(), [(task.clone(), StopSignal::Interrupt)]);
    assert_eq!(world.result(&running), None);
    world.exit(&task);
    assert_eq!(world.result(&running).unwrap().0, GenericStatus::Terminated);
}

#[test]
fn new_version_is_live_only_after_publication() {
    let mut world = World::new(function());
    let old = world.deploy(function());
    world.call();
    let task = world.started().remove(0);
    world.work(&task);
    let staged = world.define(&function());
    assert_eq!(world.state.live_definition(&world.function_id).unwrap().id, old);
    let now = world.now();
    world.state.disconnect_app(&world.app_id.clone(), now).unwrap();
    assert!(!world.state.definitions.contains_key(&staged), "a failed deployment leaves nothing");
    let new = world.deploy(function());
    assert_eq!(world.state.live_definition(&world.function_id).unwrap().id, new);
    world.call();
    let next = world.started().remove(0);
    assert_eq!(world.state.tasks[&next].definition.id, new);
    assert!(matches!(world.take(&task), Some(Delivery::Stop)), "the old one gets nothing new");
}

#[test]
fn idle_containers_stop_after_the_scaledown_window() {
    let mut world = World::new(pb::Function { task_idle_timeout_secs: 7, ..function() });
    world.call();
    let task = world.started().remove(0);
    let item = world.work(&task);
    world.put(&task, &item.input_id, GenericStatus::Success);
    world.pass(6);
    world.signals();
    assert!(world.take(&task).is_none());
    world.pass(1);
    world.signals();
    assert!(matches!(world.take(&task), Some(Delivery::Stop)));
    world.pass(29);
    assert!(world.signals().is_empty());
    world.pass(1);
    assert_eq!(world.signals(), [(task, StopSignal::Interrupt)]);
}

#[test]
fn failed_container_starts_fail_the_call_with_the_reason() {
    let mut world = World::new(function());
    let call = world.call();
    for _ in 0..3 {
        assert!(world.result(&call).is_none());
        let task = world.started().remove(0);
        world.exit(&task);
        assert!(world.started().is_empty(), "not at once");
        world.pass(8);
    }
    let (status, message) = world.result(&call).unwrap();
    assert_eq!(status, GenericStatus::InitFailure);
    assert!(message.contains("last words"), "{message}");
}

#[test]
fn restart_keeps_results_and_redelivers_running_inputs() {
    let mut world = World::new(function());
    let (done, running, waiting) = (world.call(), world.call(), world.call());
    let task = world.started().remove(0);
    let item = world.work(&task);
    world.put(&task, &item.input_id, GenericStatus::Success);
    let lost = world.work(&task);
    assert_eq!(lost.function_call_id, running);
    world.restart();
    assert_eq!(world.result(&done).unwrap().0, GenericStatus::Success);
    assert!(world.state.tasks.is_empty());
    let task = world.started().remove(0);
    let again = world.work(&task);
    assert_eq!((&again.input_id, &again.function_call_id), (&lost.input_id, &running));
    world.put(&task, &again.input_id, GenericStatus::Success);
    assert_eq!(world.work(&task).function_call_id, waiting);
}

#[test]
fn repeated_request_returns_the_same_call() {
    let mut world = World::new(function());
    let (function_id, now) = (world.function_id.clone(), world.now());
    let caller = CallOrigin { request_key: Some("key".into()), ..CallOrigin::default() };
    let call_id = world.state.begin_call(&function_id, 3, caller, now).unwrap();
    let input_id = world.state.add_input(&call_id, 0, pb::FunctionInput::default(), now).unwrap();
    world.restart();
    assert_eq!(world.state.repeated_call(Some("key")), Some((call_id, vec![(0, input_id)])));
    assert_eq!(world.state.repeated_call(Some("other")), None);
    assert_eq!(world.state.repeated_call(None), None);
}

#[test]
fn ephemeral_app_stops_without_heartbeats() {
    let mut world = World::new(function());
    let now = world.now();
    let id = world.state.create_app("", "tried out", "", AppState::Ephemeral, now).unwrap().id;
    world.pass(60);
    let now = world.now();
    world.state.app_heartbeat(&id, now).unwrap();
    world.pass(119);
    world.signals();
    assert!(!world.state.app(&id).unwrap().is_stopped());
    world.pass(1);
    world.signals();
    assert!(world.state.app(&id).unwrap().is_stopped());
    assert!(world.state.app(&world.app_id).unwrap().is_live(), "what is deployed needs no client");
}

#[test]
fn old_stopped_apps_are_deleted() {
    let mut world = World::new(pb::Function::default());
    let ended = |world: &mut World| {
        let now = world.now();
        let app = world.state.create_app("", "over", "", AppState::Initializing, now).unwrap();
        world.state.stop_app(&app.id, now).unwrap();
        app.id
    };
    let first = ended(&mut world);
    world.pass(3600);
    let others: Vec<String> = (0..100).map(|_| ended(&mut world)).collect();
    let there = |world: &World, id: &str| world.state.app(id).is_ok();
    let plan = |world: &mut World| drop(world.state.plan(world.now()));
    plan(&mut world);
    assert!(!there(&world, &first) && others.iter().all(|id| there(&world, id)), "the newest hundred stay");
    world.pass(8 * 24 * 3600);
    plan(&mut world);
    assert!(!others.iter().any(|id| there(&world, id)), "a week is enough");
    world.restart();
    assert!(!others.iter().any(|id| there(&world, id)), "it came back with a restart");
    assert!(world.state.app(&world.app_id).unwrap().is_live(), "what is deployed stays");
}

#[test]
fn scheduled_calls_are_deleted_before_spawned_ones() {
    let mut world = World::new(function());
    let (function_id, now) = (world.function_id.clone(), world.now());
    let caller = CallOrigin { scheduled: true, ..CallOrigin::default() };
    let by_clock = world.state.begin_call(&function_id, FunctionCallInvocationType::Async.into(), caller, now).unwrap();
    world.state.add_input(&by_clock, 0, pb::FunctionInput::default(), now).unwrap();
    let spawned = world.call();
    let task = world.started().remove(0);
    for _ in [&by_clock, &spawned] {
        let input = world.work(&task).input_id;
        world.put(&task, &input, GenericStatus::Success);
    }
    world.restart();
    world.pass(3500);
    world.started();
    assert!(world.state.call(&by_clock).is_ok());
    world.pass(3600);
    world.started();
    assert!(world.state.call(&by_clock).is_err(), "nobody knows its id, and there is one each minute");
    assert_eq!(world.result(&spawned), Some((GenericStatus::Success, String::new())));
}
