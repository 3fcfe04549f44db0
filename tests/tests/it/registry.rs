//! Environments come, change and go: with conditions, cancelled, taken down, and told of in events.

use std::{fs, os::unix::fs::symlink};

use chrono::{DateTime, Utc};
use integration_tests::{Done, Installation, config, databases, eventually, records::records, requests::Request, text};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::Api;

const DEV: &str = "/v1/environments/dev";

/// What a condition of the environment says: whether it holds, and the reason.
fn condition(environment: &Value, kind: &str) -> (bool, String) {
    let conditions = environment["conditions"].as_array().expect("conditions");
    let found = conditions.iter().find(|condition| condition["type"] == kind).expect("the condition");
    (found["status"].as_bool().expect("a status"), text(&found["reason"]).to_owned())
}

fn volumes(it: &Installation) -> usize {
    std::fs::read_dir(it.home().join("data/modal/volumes")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn environment_is_deleted_and_recreated() {
    let it = Installation::new();
    let with_env = it.write("with_env.yaml", &format!("{}env:\n  AIRFLOW_VAR_PLACE: here\n", config(3600)));
    it.dev("create", &["--config", with_env.to_str().expect("text")]).succeeded();
    let api = Api::new(&it);
    it.upload("greeting.py");
    it.run_dag("greeting", &["--run-id", "before"]).0.succeeded();
    let keys_and_variable = variables_of_the_secret(&it);
    assert!(keys_and_variable.iter().any(|name| name == "AIRFLOW_VAR_PLACE"), "{keys_and_variable:?}");

    // Only what was read is changed.
    let read = api.send(Method::GET, DEV, None).await;
    let etag = read.headers()["etag"].to_str().expect("text").to_owned();
    let environment: Value = read.json().await.expect("JSON");
    let unchanged = api.http.get(format!("http://localhost{DEV}")).header("if-none-match", &etag);
    assert_eq!(unchanged.send().await.expect("an answer").status(), StatusCode::NOT_MODIFIED);
    let stale = api.http.delete(format!("http://localhost{DEV}")).header("if-match", "\"0123\"");
    assert_eq!(stale.send().await.expect("an answer").status(), StatusCode::PRECONDITION_FAILED);
    let config = json!({"config": environment["config"]});
    let same = api.http.patch(format!("http://localhost{DEV}")).header("if-match", &etag).json(&config);
    assert_eq!(same.send().await.expect("an answer").status(), StatusCode::OK);
    let taken = api.http.delete("http://localhost/v1/environments/dev/variables/few").header("if-match", "*");
    assert_eq!(taken.send().await.expect("an answer").status(), StatusCode::BAD_REQUEST, "nobody looks at it there");
    assert_eq!(condition(&environment, "Available"), (true, "Deployed".to_owned()));
    assert_eq!(condition(&environment, "Reconciled"), (true, "AsConfigured".to_owned()));
    failed_request_is_not_replayed_by_its_key(&it);

    // It goes, and its data stay.
    it.dev("env delete", &[]).refused(&["no terminal", "--yes"]);
    let deleted = it.dev("env delete", &["--yes", "--json"]).succeeded().json();
    assert_eq!(deleted["operation"]["state"], "succeeded", "{deleted}");
    it.dev("env show", &[]).refused(&["there is no environment dev"]);
    it.dev("dags list", &[]).refused(&["there is no environment dev"]);
    eventually("the end of all containers", || it.containers().is_empty().then_some(()));
    assert_eq!(volumes(&it), 1);
    let keys = variables_of_the_secret(&it);
    assert!(keys.contains(&"AIRFLOW__CORE__FERNET_KEY".to_owned()), "{keys:?}");
    assert_eq!(keys.len() + 1, keys_and_variable.len(), "what the configuration had in it is gone: {keys:?}");
    it.create_dev(3600).succeeded();
    let files = it.dev("dags list", &["--json"]).succeeded().json();
    assert_eq!(files["files"][0]["filename"], "greeting.py", "{files}");
    it.dev("runs show", &["--dag-id", "greeting", "--run-id", "before"]).succeeded();

    // It goes with its data.
    let purged = it.dev("env delete", &["--yes", "--purge", "--json"]).succeeded().json();
    assert_eq!(purged["operation"]["steps"].as_array().map(Vec::len), Some(4), "{purged}");
    assert_eq!(volumes(&it), 0);
    let copies = || std::fs::read_dir(it.home().join("cache/metadata")).map_or(0, Iterator::count);
    eventually("the end of the daemon's copy of the metadata", || (copies() == 0).then_some(()));
    it.create_dev(3600).succeeded();
    assert_eq!(it.dev("dags list", &["--json"]).succeeded().json()["files"], json!([]));
    assert_eq!(it.dev("runs list", &["--json"]).succeeded().json()["dag_runs"], json!([]));

    // All of it is told, also after a restart.
    let operations = it.dev("operations list", &["--json"]).succeeded().json();
    let kinds: Vec<_> = operations["operations"].as_array().expect("a list").iter().map(|one| &one["kind"]).collect();
    assert_eq!(kinds, ["create", "delete", "create", "delete", "create"]);
    let events = api.events("0", "environment.deleted").await;
    it.kill();
    it.cli(&["daemon", "start"]).succeeded();
    let api = Api::new(&it);
    let last = events.last().expect("an event")["id"].to_string();
    let later = api.events(&last, "environment.deleted").await;
    let ids: Vec<_> = events.iter().chain(&later).map(|event| event["id"].as_i64().expect("an id")).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    let of = |kind| events.iter().chain(&later).filter(|event| event["type"] == kind).count();
    assert_eq!([of("environment.created"), of("environment.ready"), of("environment.deleting")], [2, 2, 2]);
    assert_eq!((of("environment.deleted"), of("dag_run.triggered")), (2, 3));
}

fn variables_of_the_secret(it: &Installation) -> Vec<String> {
    let secrets = records(&it.home(), "secret");
    secrets.iter().flat_map(|secret| secret["variables"].as_object().expect("variables").keys().cloned()).collect()
}

/// A run is triggered, and then the daemon fails to read it. The same request again does not trigger another one.
fn failed_request_is_not_replayed_by_its_key(it: &Installation) {
    let request = Request::new(format!("POST {DEV}/dags/greeting/runs")).json(&json!({})).with_key("once");
    let runs = || it.dev("runs list", &["--json"]).succeeded().json()["total_entries"].as_i64().expect("a number");
    let (before, copies) = (runs(), it.home().join("cache/metadata"));
    fs::remove_dir_all(&copies).and_then(|()| fs::write(&copies, "no folder")).expect("in the way");
    assert_eq!(request.send(&it.socket()).expect("an answer").status, 500);
    fs::remove_file(&copies).expect("out of the way");
    let run = request.send(&it.socket()).expect("an answer").expect(&[201]);
    assert_eq!(runs(), before + 1, "{run}");
    let other =
        Request::new(format!("POST {DEV}/dags/greeting/runs")).json(&json!({"conf": {"x": 1}})).with_key("once");
    assert_eq!(other.send(&it.socket()).expect("an answer").status, 422);
}

/// As with a full disk: what cannot be written down is tried again, but not without a pause.
#[tokio::test]
async fn unwritable_registry_is_retried_with_backoff() {
    let it = Installation::new();
    it.cli(&["daemon", "start"]).succeeded();
    let (api, registry) = (Api::new(&it), it.home().join("data/registry.db"));
    let body = json!({"name": "dev", "config": {"database": {"type": "sqlite"}}}).to_string();
    api.json(Method::POST, "/v1/environments", Some(&body)).await;
    let full = "CREATE TRIGGER full BEFORE UPDATE ON operation BEGIN SELECT RAISE(FAIL, 'the disk is full'); END";
    databases::execute(&registry, full);
    let tries = eventually("two tries", || {
        let log = it.log();
        let lines = log.lines().filter(|line| line.contains("an attempt could not be recorded"));
        let times: Vec<DateTime<Utc>> = lines.map(|line| line[..27].parse().expect("a time")).collect();
        (times.len() > 1).then_some(times)
    });
    assert!((tries[1] - tries[0]).num_seconds() >= 3, "{tries:?}");
    databases::execute(&registry, "DROP TRIGGER full");
    let deleted = api.json(Method::DELETE, &format!("{DEV}?purge=true"), None).await;
    it.cli(&["operations", "wait", text(&deleted["operation"]["id"])]).succeeded();
}

#[tokio::test]
async fn canceled_and_superseded_operations_end() {
    let it = Installation::new();
    it.cli(&["daemon", "start"]).succeeded();
    let api = Api::new(&it);
    let body = json!({"name": "dev", "config": {"database": {"type": "sqlite"}}}).to_string();

    // Cancelled: it rests until it is wanted again.
    let created = api.json(Method::POST, "/v1/environments", Some(&body)).await;
    let operation = format!("/v1/operations/{}", text(&created["operation"]["id"]));
    let cancelled = api.json(Method::POST, &format!("{operation}/cancel"), None).await;
    assert_eq!(cancelled["state"], "cancelled", "{cancelled}");
    assert_eq!(api.json(Method::POST, &format!("{operation}/cancel"), None).await["state"], "cancelled");
    let environment = api.json(Method::GET, DEV, None).await;
    assert_eq!((&environment["state"], &environment["retry_at"]), (&json!("degraded"), &Value::Null), "{environment}");
    assert_eq!(condition(&environment, "Reconciled"), (false, "Cancelled".to_owned()));

    // Wanted again, and then not at all: the deletion does not wait for the creation.
    let again = api.json(Method::POST, "/v1/environments", Some(&body)).await;
    assert_eq!(again["operation"]["state"], "running", "{again}");
    let deleted = api.json(Method::DELETE, &format!("{DEV}?purge=true"), None).await;
    assert_eq!(deleted["environment"]["state"], "deleting", "{deleted}");
    let repeated = api.send(Method::POST, "/v1/environments", Some(&body)).await.status();
    assert!(repeated == StatusCode::CONFLICT || repeated == StatusCode::ACCEPTED, "{repeated}");
    let id = text(&deleted["operation"]["id"]);
    it.cli(&["operations", "wait", id]).succeeded();
    let replaced = api.json(Method::GET, &format!("/v1/operations/{}", text(&again["operation"]["id"])), None).await;
    assert_eq!(
        (&replaced["state"], &replaced["error"]),
        (&json!("cancelled"), &json!("a later change took its place"))
    );
    // There is nothing left to cancel.
    let ended = api.json(Method::POST, &format!("/v1/operations/{id}/cancel"), None).await;
    assert_eq!(ended["state"], "succeeded");
}

#[tokio::test]
async fn failed_step_is_reported_and_retried() {
    let it = Installation::new();
    let (python, runtimes) = (it.root().join("python"), it.root().join("runtimes"));
    let mut daemon = it.command("airflow-serverless");
    daemon.env("AIRFLOW_SERVERLESS_PYTHON", &python).env("AIRFLOW_SERVERLESS_RUNTIMES", &runtimes);
    daemon.args(["daemon", "start"]).assert().success();
    it.create_dev(3600).refused(&["no Python 3.11"]);
    let shown = it.dev("env show", &["--json"]).succeeded().json();
    assert_eq!((&shown["state"], condition(&shown, "Reconciled").1.as_str()), (&json!("degraded"), "StepFailed"));
    assert!(shown["failed_attempts"].as_i64() >= Some(1) && !shown["retry_at"].is_null(), "{shown}");
    let people = it.dev("env show", &[]).succeeded().stdout;
    assert!(people.contains("Prepare the Python runtime: no Python") && people.contains("Next try"), "{people}");

    // What was wrong is put right, and the daemon goes on by itself.
    for runtime in std::fs::read_dir(integration_tests::runtimes()).expect("runtimes").filter_map(Result::ok) {
        let link = runtimes.join(runtime.file_name());
        if !link.exists() {
            symlink(runtime.path(), link).expect("a link");
        }
    }
    eventually("the next attempt", || (it.dev("env show", &["--json"]).json()["state"] == "ready").then_some(()));
    let shown = it.dev("env show", &["--json"]).succeeded().json();
    assert_eq!((&shown["failed_attempts"], &shown["error"]), (&json!(0), &Value::Null), "{shown}");
}

// The request goes on while the test waits for what comes of it.
#[tokio::test(flavor = "multi_thread")]
async fn repeated_idempotency_key_replays_the_response() {
    let it = Installation::with_dev(3600);
    it.upload("greeting.py");
    it.dev("tick", &[]).succeeded();
    let api = Api::new(&it);
    let url = format!("http://localhost{DEV}/dags/greeting/runs");
    let post = |key: &str, body: Value| api.http.post(&url).header("idempotency-key", key).json(&body).send();
    let runs = || it.dev("runs list", &["--json"]).succeeded().json()["total_entries"].as_i64().expect("a number");

    let first = post("one", json!({})).await.expect("an answer");
    assert_eq!(first.status(), StatusCode::CREATED);
    let first: Value = first.json().await.expect("JSON");
    let second = post("one", json!({})).await.expect("an answer");
    assert_eq!(
        (second.status(), &second.headers()["idempotency-replayed"]),
        (StatusCode::CREATED, &"true".parse().expect("a header"))
    );
    assert_eq!(second.json::<Value>().await.expect("JSON"), first);
    let other = post("one", json!({"conf": {"a": 1}})).await.expect("an answer");
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(post(&"x".repeat(256), json!({})).await.expect("an answer").status(), StatusCode::BAD_REQUEST);

    // At the same time: one does the work.
    let (left, right) = tokio::join!(post("two", json!({})), post("two", json!({})));
    let mut both = [left.expect("an answer").status(), right.expect("an answer").status()];
    both.sort();
    assert_eq!(both, [StatusCode::CREATED, StatusCode::CONFLICT]);

    // The daemon is killed before it answers.
    let lost = tokio::spawn(post("three", json!({})));
    eventually("a command of the request", || {
        (it.dev("runs list", &["--json"]).json()["total_entries"].as_i64() > Some(2)).then_some(())
    });
    it.kill();
    drop(lost.await);
    it.cli(&["daemon", "start"]).succeeded();
    // The old connections are broken.
    let api = Api::new(&it);
    let post = |key: &str, body: Value| api.http.post(&url).header("idempotency-key", key).json(&body).send();
    assert_eq!(post("three", json!({})).await.expect("an answer").status(), StatusCode::CREATED);
    assert_eq!(runs(), 3);

    // What was refused is not remembered.
    let missing = format!("http://localhost{DEV}/dags/steady/runs");
    let post_missing = || api.http.post(&missing).header("idempotency-key", "four").json(&json!({})).send();
    assert_eq!(post_missing().await.expect("an answer").status(), StatusCode::NOT_FOUND);
    it.upload("steady.py");
    let found = post_missing().await.expect("an answer");
    assert_eq!(found.status(), StatusCode::CREATED, "{:?}", found.text().await);
}

/// As other commands do.
#[test]
fn operations_and_events_are_filtered_by_environment() {
    let it = Installation::new();
    // What is asked for are records: how far the creations come does not matter.
    it.start_without_python();
    let config = it.write("config.yaml", &integration_tests::config(3600));
    for name in ["first", "second"] {
        it.cli(&["create", "--env", name, "--config", config.to_str().expect("text")]);
    }
    for command in [&["operations", "list"][..], &["events", "--after", "0", "--no-follow"]] {
        let all = it.cli(command).succeeded().stdout;
        assert!(all.contains("first") && all.contains("second"), "{all}");
        let mut chosen = it.command("airflow-serverless");
        let chosen = chosen.env("AIRFLOW_SERVERLESS_ENV", "second").args(command).output().expect("the CLI runs");
        let chosen = Done::from(chosen).succeeded().stdout;
        assert!(!chosen.contains("first") && chosen.contains("second"), "{chosen}");
    }
}
