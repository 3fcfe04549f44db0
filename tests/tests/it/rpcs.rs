//! What operations cost: the RPCs of each, as Local Modal counts them. On Modal's cloud each is a round trip.
//!
//! Containers send RPCs, too. While they are kept from taking inputs, only the daemon sends those that are looked at here;
//! with a scheduler that works, those are counted that no container sends.

use std::{collections::BTreeMap, time::Duration};

use integration_tests::{Installation, eventually, requests::Request, text};
use serde_json::{Value, json};

/// How often an operation is measured before it counts as too dear. Now and then something else happens meanwhile: the
/// daemon looks at the scheduler, and after a minute at what it has published.
const TRIES: usize = 8;

/// In so many looks in a row nothing happens where containers are at rest: what is spawned is taken sooner.
const LOOKS_AT_REST: usize = 50;

/// A plugin that was not changed for so long is kept by the daemon.
const SETTLED: Duration = Duration::from_secs(3);

/// RPCs that only the daemon sends, once containers have looked up their objects.
fn is_of_the_daemon_alone(rpc: &str) -> bool {
    let objects = ["DictGetOrCreate", "FunctionGet", "VolumeGetOrCreate"];
    let files = ["MountPutFile", "VolumeGetFile2", "VolumeListFiles2", "VolumePutFiles", "VolumeRemoveFile"];
    objects.contains(&rpc) || files.contains(&rpc)
}

/// RPCs that idle containers do not send.
fn is_not_of_containers_at_rest(rpc: &str) -> bool {
    !rpc.starts_with("Container") && rpc != "FunctionGetInputs"
}

type Counts = BTreeMap<String, u64>;

fn status(it: &Installation) -> Value {
    let socket = it.home().join("data/modal/admin.sock");
    Request::new("GET /status").send(&socket).expect("an answer").expect(&[200])
}

fn counts(it: &Installation) -> Counts {
    serde_json::from_value(status(it)["rpcs"].clone()).expect("counts")
}

/// Has these faults happen from now on.
fn set_faults(it: &Installation, faults: &Value) {
    let socket = it.home().join("data/modal/admin.sock");
    let reply = Request::new("PUT /faults").json(faults).send(&socket).expect("an answer");
    assert_eq!(reply.status, 204, "{reply:?}");
}

fn ask(it: &Installation, request: &Request) -> Value {
    request.send(&it.socket()).expect("an answer").expect(&[200, 201])
}

fn get(it: &Installation, path: &str) -> Value {
    ask(it, &Request::new(format!("GET /v1/environments/dev/{path}")))
}

fn upload(it: &Installation, name: &str, mode: &str, content: &str) -> Value {
    let request = Request::new(format!("PUT /v1/environments/dev/dags/files/{name}?mode={mode}"));
    ask(it, &request.body("text/x-python", content.to_owned()))
}

/// A file with one DAG, and so many bytes more.
fn dag(dag_id: &str, more: usize) -> String {
    let filler = "x".repeat(more);
    format!(
        "from airflow.sdk import DAG, task\n\nwith DAG({dag_id:?}):\n\n    @task\n    def t(): ...\n\n    t()\n# {filler}\n"
    )
}

/// Fails if an operation takes other RPCs than these, of those that are counted, each time that it is measured.
/// Each time `prepare` comes before it.
#[track_caller]
fn costs<T>(
    it: &Installation,
    what: &str,
    is_counted: fn(&str) -> bool,
    expected: &[(&str, u64)],
    prepare: impl Fn(usize) -> T,
    operate: impl Fn(T),
) {
    let expected: Counts = expected.iter().map(|(rpc, count)| ((*rpc).to_owned(), *count)).collect();
    let mut seen = Vec::new();
    for number in 0..TRIES {
        let prepared = prepare(number);
        let before = counts(it);
        operate(prepared);
        let mut cost = counts(it);
        cost.retain(|rpc, count| {
            *count -= before.get(rpc).copied().unwrap_or_default();
            *count > 0 && is_counted(rpc)
        });
        if cost == expected {
            return;
        }
        seen.push(cost);
    }
    panic!("{what} costs {seen:#?} instead of {expected:?}; ARCHITECTURE.md has a table of the costs");
}

#[test]
fn operations_stay_within_their_rpc_counts() {
    let it = Installation::with_dev(3600);
    upload(&it, "first.py", "create", &dag("first", 0));
    let (done, run) = it.run_dag("first", &[]);
    done.succeeded();
    changes_cost_what_they_need(&it);
    keep_containers_from_work(&it);
    uploads_cost_five(&it);
    reads_cost_little(&it, text(&run["dag_run_id"]));
    commands_cost_three(&it);
    missing_objects_are_looked_up_again(&it);
    set_faults(&it, &json!([]));
}

/// Beside the command to the scheduler. Most read the metadata when it has answered.
fn changes_cost_what_they_need(it: &Installation) {
    let pause = |is_paused: bool| {
        ask(it, &Request::new("PATCH /v1/environments/dev/dags/first").json(&json!({"is_paused": is_paused})));
    };
    let metadata = ("VolumeGetFile2", 1);
    let counted: fn(&str) -> bool = is_of_the_daemon_alone;
    costs(it, "unpausing a DAG", counted, &[metadata], |_| pause(true), |()| pause(false));
    costs(it, "pausing a DAG", counted, &[metadata], |_| pause(false), |()| pause(true));
    let trigger = |()| {
        ask(it, &Request::new("POST /v1/environments/dev/dags/first/runs").json(&json!({})));
    };
    costs(it, "a trigger", counted, &[metadata], |_| (), trigger);

    let known = |number: usize| {
        let name = format!("gone_{number}");
        upload(it, &format!("{name}.py"), "create", &dag(&name, 0));
        get(it, &format!("dags/{name}"));
        name
    };
    let removal = ("VolumeRemoveFile", 1);
    costs(it, "the deletion of a DAG", counted, &[("VolumeListFiles2", 1), removal], known, |name| {
        drop(ask(it, &Request::new(format!("DELETE /v1/environments/dev/dags/{name}"))))
    });
    costs(it, "the deletion of a file", counted, &[removal], known, |name| {
        drop(ask(it, &Request::new(format!("DELETE /v1/environments/dev/dags/files/{name}.py"))))
    });
}

/// A fault that keeps containers from getting inputs, except by requests that they have already sent.
fn no_inputs() -> Value {
    json!({"rpc": "FunctionGetInputs", "action": "delay", "seconds": 3600, "times": 1_000_000})
}

/// Waits until containers do nothing, and what is spawned stays in its queue.
fn keep_containers_from_work(it: &Installation) {
    set_faults(it, &json!([no_inputs()]));
    upload(it, "last.py", "create", &dag("last", 0));
    let (mut before, mut unchanged) = (Counts::new(), 0);
    eventually("containers at rest", || {
        let mut rpcs = counts(it);
        rpcs.retain(|rpc, _| is_not_of_containers_at_rest(rpc));
        let works = status(it)["containers"].as_array()?.iter().any(|container| container["inputs"] != 0);
        unchanged = if rpcs == before && !works { unchanged + 1 } else { 0 };
        before = rpcs;
        (unchanged == LOOKS_AT_REST).then_some(())
    });
    // The metadata that the last tick has published.
    get(it, "dags");
}

fn uploads_cost_five(it: &Installation) {
    let listed = ("VolumeListFiles2", 1);
    let written = [("MountPutFile", 1), ("VolumePutFiles", 1)];
    let woken = [("DictUpdate", 1), ("FunctionMap", 1)];
    let upload_costs = |what: &str, rpcs: &[(&str, u64)], operate: &dyn Fn(usize)| {
        costs(it, what, is_not_of_containers_at_rest, rpcs, |number| number, operate);
    };
    let all = [&[listed][..], &written, &woken].concat();
    let create = |folder: &str, number: usize| {
        let name = format!("{folder}_{number}");
        upload(it, &format!("{name}.py"), "create", &dag(&name, 0));
    };
    upload_costs("an upload", &all, &|number| create("new", number));
    let replace = |more: usize| {
        upload(it, "last.py", "update", &dag("last", more));
    };
    upload_costs("a replacement", &all, &|number| replace(number + 1));
    let read = ("VolumeGetFile2", 1);
    let same_size = |number: usize| {
        upload(it, "last.py", "update", &dag(&format!("last{number}"), 0));
    };
    same_size(TRIES);
    upload_costs("a replacement of the same size", &[&all[..], &[read]].concat(), &same_size);
    let unchanged = |_| {
        upload(it, "first.py", "update", &dag("first", 0));
    };
    upload_costs("an upload of what is there", &[&[listed, read][..], &woken].concat(), &unchanged);
    for name in ["plugins/one.py", "plugins/two.py"] {
        upload(it, &name.replace('/', "%2F"), "create", "ONE = 1\n");
    }
    // They are read for each upload as long as they may change unseen, in the second of their last change.
    let last = it.volume().join("dags/plugins/two.py");
    eventually("plugins that were not changed lately", || {
        (last.metadata().ok()?.modified().ok()?.elapsed().ok()? > SETTLED).then_some(())
    });
    upload_costs("an upload beside plugins", &all, &|number| create("beside", number));
}

fn reads_cost_little(it: &Installation, run_id: &str) {
    let published = ("DictGet", 1);
    let run = format!("dags/first/runs/{run_id}");
    let log = format!("{run}/tasks/t/logs");
    let (listed, read) = (("VolumeListFiles2", 1), ("VolumeGetFile2", 1));
    let cases: [(&str, &[(&str, u64)]); 9] = [
        ("dags", &[published, listed]),
        ("dags/first", &[published]),
        ("dags/files/first.py", &[read]),
        ("import-errors", &[published]),
        ("runs", &[published]),
        (&run, &[published]),
        (&log, &[published, listed, read]),
        ("pools", &[published]),
        // The health of the scheduler, and when it is due.
        ("", &[("DictGet", 2)]),
    ];
    for (path, rpcs) in cases {
        let request = Request::new(format!("GET /v1/environments/dev/{path}").trim_end_matches('/'));
        let read = |()| {
            let reply = request.send(&it.socket()).expect("an answer");
            assert_eq!(reply.status, 200, "{path}: {reply:?}");
        };
        costs(it, path, is_not_of_containers_at_rest, rpcs, |_| (), read);
    }
}

/// The command, the mark that wakes the scheduler and the tick: beside what is asked until the reply is there, which here
/// never comes.
fn commands_cost_three(it: &Installation) {
    let failing = json!({"rpc": "FunctionGetOutputs", "action": "fail", "code": 5, "times": 1_000_000});
    set_faults(it, &json!([no_inputs(), failing]));
    // The reply is polled for, and then the health of the scheduler is looked at.
    let counted = |rpc: &str| is_not_of_containers_at_rest(rpc) && !["DictPop", "DictGet"].contains(&rpc);
    let trigger = |()| {
        let request = Request::new("POST /v1/environments/dev/dags/first/runs").json(&json!({}));
        let reply = request.send(&it.socket()).expect("an answer");
        assert!(reply.status >= 500, "{reply:?}");
    };
    let expected = [("DictUpdate", 2), ("FunctionMap", 1), ("FunctionGetOutputs", 1)];
    costs(it, "a command", counted, &expected, |_| (), trigger);
}

fn missing_objects_are_looked_up_again(it: &Installation) {
    let uses =
        [("VolumePutFiles", "VolumeGetOrCreate"), ("DictUpdate", "DictGetOrCreate"), ("FunctionMap", "FunctionGet")];
    for (number, (used, looked_up)) in uses.into_iter().enumerate() {
        let is_gone = json!({"rpc": used, "action": "fail", "code": 5, "message": "it is gone"});
        set_faults(it, &json!([no_inputs(), is_gone]));
        let before = counts(it)[looked_up];
        upload(it, "last.py", "update", &dag("last", 100 + number));
        assert!(counts(it)[looked_up] > before, "{used}");
    }
}
