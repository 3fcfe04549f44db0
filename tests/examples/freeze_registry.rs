//! Keeps a registry of the present schema for the tests of later ones: `registry-vN.db` in `tests/data`, by
//! `cargo run -p integration-tests --example freeze_registry`, after a build of `airflowd` and `airflow-serverless`.
//! Each release that changes the schema adds one; those that are there are never made anew.
//!
//! It has one of everything: an environment that is ready, operations, events, an answered request with an
//! `Idempotency-Key`, a watch and what it has uploaded.

use std::fs;

use integration_tests::{
    Installation,
    databases::{execute, rows},
    eventually,
    requests::Request,
    text, workspace,
};
use serde_json::json;

/// Where the watched folder is said to be: the real one is gone with the installation.
const FOLDER: &str = "/home/me/dags";

fn main() {
    let it = Installation::new();
    it.cli(&["daemon", "start"]).succeeded();
    let config = json!({
        "database": {"type": "sqlite"},
        "scheduler": {"interval_seconds": 3600},
        "executor": {"parallelism": 2},
    });
    let send = |request: Request| request.send(&it.socket()).expect("an answer").expect(&[200, 201, 202]);
    let create = json!({"name": "dev", "config": config});
    let created = send(Request::new("POST /v1/environments").json(&create).with_key("frozen"));
    it.cli(&["operations", "wait", text(&created["operation"]["id"])]).succeeded();
    it.cli(&[
        "create",
        "--env",
        "dev",
        "--config",
        it.write("config.yaml", &config.to_string()).to_str().expect("text"),
    ])
    .succeeded();

    let folder = it.root().join("dags");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("notes.txt"), "frozen\n").expect("a written file");
    it.dev("watch add", &["--delete", "--pattern", "*.txt", folder.to_str().expect("text")]).succeeded();
    eventually("the upload", || {
        let watches = it.cli(&["watch", "list", "--json"]).json();
        (watches["watches"][0]["state"] == "in_sync").then_some(())
    });
    it.cli(&["daemon", "stop"]).succeeded();

    let registry = it.home().join("data/registry.db");
    let version = &rows(&registry, "SELECT max(version) FROM _sqlx_migrations")[0][0];
    // Deployed by functions that are none: whoever opens it deploys its environment anew.
    execute(
        &registry,
        &format!("UPDATE watch SET directory = '{FOLDER}'; UPDATE environment SET functions = 'frozen'"),
    );
    let frozen = workspace().join(format!("tests/data/registry-v{version}.db"));
    assert!(!frozen.exists(), "{} is there already", frozen.display());
    fs::copy(&registry, &frozen).expect("a copy");
    println!("{}", frozen.display());
}
