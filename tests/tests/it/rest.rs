//! The REST API as any HTTP client sees it.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use integration_tests::{Installation, workspace};
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::Api;

#[tokio::test]
async fn invalid_requests_are_answered_with_problems() {
    let it = Installation::new();
    it.cli(&["daemon", "start"]).succeeded();
    let api = Api::new(&it);
    let version: Value = api.send(Method::GET, "/v1/version", None).await.json().await.expect("JSON");
    assert_eq!(version["airflow_version"], "3.3.2");
    assert_eq!(api.send(Method::GET, "/v1/health", None).await.status(), 200);

    let zero = json!({"name": "dev", "config": {"database": {"type": "sqlite"}, "scheduler": {"interval_seconds": 0}}});
    let postgres = json!({"name": "dev", "config": {"database": {"type": "postgres",
        "connection_string": "postgresql://u:hunter2/@h/d"}}});
    let (zero, postgres) = (zero.to_string(), postgres.to_string());
    let sqlite = json!({"config": {"database": {"type": "sqlite"}}}).to_string();
    let large = "#".repeat(5 << 20);
    let cases = [
        (Method::GET, "/nowhere", None, (404, "no-such-route")),
        (Method::DELETE, "/v1/health", None, (405, "no-such-method")),
        (Method::GET, "/v1/environments/dev", None, (404, "environment-not-found")),
        (Method::GET, "/v1/environments/Dev", None, (400, "invalid-request")),
        (Method::GET, "/v1/operations/x", None, (400, "invalid-request")),
        (Method::GET, "/v1/operations/01a20d09-0eef-70dd-9b49-7e1b74be2070", None, (404, "operation-not-found")),
        (Method::GET, "/v1/environments/dev/runs", None, (404, "environment-not-found")),
        (Method::GET, "/v1/environments/dev/runs?limit=-1", None, (400, "invalid-request")),
        (Method::PATCH, "/v1/environments/dev", Some(sqlite.as_str()), (404, "environment-not-found")),
        (Method::PUT, "/v1/environments/dev/dags/files/x.py", Some("x"), (400, "invalid-request")),
        (Method::PUT, "/v1/environments/dev/dags/files/..%2Fx.py?mode=create", Some("x"), (422, "invalid-file-name")),
        (Method::PUT, "/v1/environments/dev/dags/files/x.py?mode=create", Some("x"), (404, "environment-not-found")),
        (
            Method::PUT,
            "/v1/environments/dev/dags/files/x.py?mode=create",
            Some(large.as_str()),
            (413, "body-too-large"),
        ),
        (Method::POST, "/v1/environments", Some("{"), (400, "invalid-request")),
        (Method::POST, "/v1/environments", Some("{}"), (422, "invalid-request")),
        (Method::POST, "/v1/environments", Some(zero.as_str()), (422, "invalid-config")),
        (Method::POST, "/v1/environments", Some(postgres.as_str()), (422, "invalid-config")),
    ];
    for (method, path, body, (status, kind)) in cases {
        assert_eq!(api.problem(method, path, body).await, (status, kind.to_owned()), "{path}");
    }
    let plain = api.http.post("http://localhost/v1/environments").body("{}").send().await.expect("an answer");
    assert_eq!(plain.status(), 415, "a web page could send this without asking");

    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    for (path, expected) in
        [("run", 0o700), ("data", 0o700), ("data/registry.db", 0o600), ("data/registry.db-wal", 0o600)]
    {
        assert_eq!(mode(&it.home().join(path)), expected, "{path}");
    }
    assert_eq!(mode(&it.socket()), 0o600);

    let second = it.command("airflowd").output().expect("airflowd runs");
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another airflowd runs"), "{second:?}");
}

#[tokio::test]
async fn creation_is_polled_through_its_operation() {
    let it = Installation::new();
    it.cli(&["daemon", "start"]).succeeded();
    let api = Api::new(&it);
    let body = json!({"name": "dev", "config": {"database": {"type": "sqlite"}}}).to_string();
    let accepted = api.send(Method::POST, "/v1/environments", Some(&body)).await;
    assert_eq!(accepted.status(), 202);
    let location = accepted.headers()["location"].to_str().expect("text").to_owned();
    let mut operation: Value = accepted.json::<Value>().await.expect("JSON")["operation"].take();
    while operation["state"] == "running" {
        let path = format!("{location}?after={}&wait_seconds=20", operation["revision"]);
        let next: Value = api.send(Method::GET, &path, None).await.json().await.expect("JSON");
        assert!(next["revision"].as_i64() >= operation["revision"].as_i64());
        operation = next;
    }
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let ended = format!("{location}?after={}&wait_seconds=30", operation["revision"]);
    let ended = tokio::time::timeout(Duration::from_secs(10), api.send(Method::GET, &ended, None)).await;
    assert_eq!(ended.expect("no wait for news that cannot come").status(), 200);
    assert_eq!(api.send(Method::POST, "/v1/environments", Some(&body)).await.status(), 200);
    let early = api.problem(Method::POST, "/v1/environments/dev/dags/x/runs", Some("{}")).await;
    assert_eq!(early, (404, "dag-not-found".to_owned()));
    let backfills = "/v1/environments/dev/backfills";
    let days = r#"{"dag_id": "x", "from_date": "2026-01-01T00:00:00Z", "to_date": "2026-01-02T00:00:00Z"}"#;
    for (method, path, body, problem) in [
        (Method::POST, "", Some(days), (404, "dag-not-found")),
        (Method::POST, "/dry_run", Some(days), (404, "dag-not-found")),
        (Method::POST, "", Some(r#"{"dag_id": "x"}"#), (422, "invalid-request")),
        (Method::GET, "/7", None, (404, "backfill-not-found")),
        (Method::PUT, "/7/cancel", None, (404, "backfill-not-found")),
        (Method::GET, "/x", None, (400, "invalid-request")),
    ] {
        let (status, kind) = api.problem(method, &format!("{backfills}{path}"), body).await;
        assert_eq!((status, kind.as_str()), problem, "{path}");
    }
    let none: Value = api.send(Method::GET, backfills, None).await.json().await.expect("JSON");
    assert_eq!(none, json!({"backfills": [], "total_entries": 0}));
}

#[test]
fn openapi_document_is_current() {
    let it = Installation::new();
    let output = it.command("airflowd").arg("--print-openapi").output().expect("airflowd runs");
    let checked_in = std::fs::read(workspace().join("openapi/airflowd.json")).expect("the document");
    assert!(output.stdout == checked_in, "openapi/airflowd.json is stale: `make openapi` writes it anew");
}

#[tokio::test]
async fn responses_do_not_repeat_secrets() {
    let it = Installation::new();
    it.cli(&["daemon", "start"]).succeeded();
    let api = Api::new(&it);
    let url = "postgresql://u:hunter2@h/d";
    let configs = [
        json!({"database": {"type": "postgres", "connection_string": "postgresql://u:hunter2/@h/d"}}),
        json!({"database": {"type": "sqlite"}, "connection_string": url}),
        json!({"database": {"type": "postgres", "connection_string": "hunter2"}}),
        json!({"database": {"type": "postgres", "connection_string": [url]}}),
        json!({"database": {"type": url}}),
        json!({"database": url}),
        json!({"database": {"type": "sqlite"}, "executor": {"parallelism": url}}),
        json!({"database": {"type": "sqlite"}, (url): 1}),
    ];
    for config in configs {
        let body = json!({"name": "dev", "config": config}).to_string();
        let answer = api.send(Method::POST, "/v1/environments", Some(&body)).await;
        assert_eq!(answer.status(), 422, "{body}");
        let answer = answer.text().await.expect("text");
        assert!(!answer.contains("hunter2"), "{body} is answered with {answer}");
    }
    assert!(!it.holds("hunter2"), "a secret was written down");
}
