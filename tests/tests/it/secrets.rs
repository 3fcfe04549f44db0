//! Values that users entrust to the product: in no file, and in no answer to a request that is wrong.

use std::{fs, os::unix::fs::PermissionsExt};

use integration_tests::{Installation, config, daemon::Daemon, records::records, requests::Request};
use rustix::process::Signal;
use serde_json::{Value, json};

const ENV: &str = "planted-in-env-5b1e";
const OPTION: &str = "planted-in-airflow-77c0";
const VARIABLE: &str = "planted-in-a-variable-90af";
const IMPORTED: &str = "planted-in-an-import-d1f3";
const PASSWORD: &str = "planted-in-a-connection-3c2a";
const EXTRA: &str = "planted-in-an-extra-e8b7";

/// Fails if a value stays in a file of the home, or a file with secrets is open to others.
#[track_caller]
fn in_no_file(it: &Installation, values: &[&str], when: &str) {
    for value in values {
        it.has_in_no_file(value);
    }
    let data = it.home().join("data");
    for name in ["registry.db", "registry.db-wal", "modal/state.db", "modal/state.db-wal", "modal/state.key"] {
        // There is no write-ahead log when nobody has the database open.
        let Ok(metadata) = fs::metadata(data.join(name)) else { continue };
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}, {when}");
    }
}

#[test]
fn secret_values_are_in_no_file_of_the_home() {
    let it = Installation::new();
    let mut daemon = Daemon::start(&it, &[]);
    daemon.serves(&it);
    let with_secrets = format!(
        "{}env:\n  PLANTED: {ENV}\nairflow:\n  secrets:\n    backend_kwargs: '{{\"planted\": \"{OPTION}\"}}'\n",
        config(3600)
    );
    let path = it.write("secret.yaml", &with_secrets);
    it.dev("create", &["--config", path.to_str().expect("text")]).succeeded();
    it.dev("variables set", &["planted", VARIABLE]).succeeded();
    // So large that it does not travel inside of a request.
    let large = json!({"imported": format!("{IMPORTED}{}", "x".repeat(3 << 20))});
    let file = it.write("variables.json", &large.to_string());
    it.dev("variables import", &[file.to_str().expect("text")]).succeeded();
    let uri = format!("http://u:{PASSWORD}@db.example/?token={EXTRA}");
    it.dev("connections add", &["planted", "--conn-uri", &uri]).succeeded();
    it.upload("greeting.py");
    it.run_dag("greeting", &[]).0.succeeded();
    assert_eq!(it.dev("variables get", &["planted"]).succeeded().stdout.trim(), VARIABLE);

    let secrets = records(&it.home(), "secret");
    let fernet = secrets.iter().find_map(|secret| secret["variables"]["AIRFLOW__CORE__FERNET_KEY"].as_str());
    let fernet = fernet.expect("a Fernet key").to_owned();
    let values = [ENV, OPTION, VARIABLE, IMPORTED, PASSWORD, EXTRA, fernet.as_str()];
    in_no_file(&it, &values, "while it runs");
    daemon.crash();
    in_no_file(&it, &values, "after a crash");
    let mut daemon = Daemon::start(&it, &[]);
    daemon.serves(&it);
    assert_eq!(it.dev("variables get", &["planted"]).succeeded().stdout.trim(), VARIABLE);
    it.dev("env delete", &["--yes", "--purge"]).succeeded();
    in_no_file(&it, &values, "after a purge");
    daemon.signal(Signal::TERM);
    daemon.ended();
    in_no_file(&it, &values, "after its end");
}

#[test]
fn mistyped_values_are_not_repeated() {
    let it = Installation::new();
    it.start_without_python();
    it.dev("create", &["--config", it.write("c.yaml", &config(3600)).to_str().expect("text")]);
    let planted = [
        json!("hunter2"),
        json!("hunter2\", expected hunter2"),
        json!("postgresql://u:hunter2@h/d"),
        json!(["hunter2"]),
        json!({"a": {"b": "hunter2"}}),
        json!(271_828_182),
    ];
    let environment = |config: Value| ("POST /v1/environments", json!({"name": "other", "config": config}));
    let connection = |fields: Value| {
        let mut entry = json!({"connection_id": "a", "conn_type": "http"});
        entry.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        ("POST /v1/environments/dev/connections", json!({"connections": [entry]}))
    };
    for value in planted {
        let requests = [
            ("POST /v1/environments", json!({"name": "other", "config": value})),
            ("POST /v1/environments", value.clone()),
            environment(json!({"env": value})),
            environment(json!({"env": {"A": [value]}})),
            environment(json!({"airflow": value})),
            environment(json!({"airflow": {"core": {"parallelism": [value]}}})),
            environment(json!({"database": value})),
            environment(json!({"database": {"type": value}})),
            environment(json!({"connection_string": [value]})),
            ("POST /v1/environments/dev/variables", json!({"variables": value})),
            ("POST /v1/environments/dev/variables", json!({"variables": [value]})),
            ("POST /v1/environments/dev/variables", json!({"variables": [{"key": [value], "value": 1}]})),
            ("POST /v1/environments/dev/variables", json!({"variables": [], "action_on_existing_key": value})),
            ("POST /v1/environments/dev/connections", json!({"connections": value})),
            connection(json!({"port": [value]})),
            connection(json!({"conn_type": [value]})),
            connection(json!({"password": [value]})),
            connection(json!({"port": "hunter2"})),
            ("PUT /v1/credentials", json!({"token_id": [value], "token_secret": value})),
            ("PUT /v1/credentials", json!({"token_id": "ak-1", "token_secret": [value]})),
        ];
        for (line, body) in requests {
            let answer = Request::new(line).json(&body).send(&it.socket()).expect("an answer");
            assert!((400..500).contains(&answer.status), "{line} {body}: {answer:?}");
            let shown = format!("{answer:?}");
            assert!(!shown.contains("hunter2") && !shown.contains("271828182"), "{line} {body}: {shown}");
        }
    }
    assert!(!it.log().contains("hunter2"), "{}", it.log());
}
