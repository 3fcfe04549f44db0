//! An environment whose metadata are in PostgreSQL: from a wrong password to a finished run, and nothing given away.

use std::path::PathBuf;

use integration_tests::{Installation, eventually, postgres::Postgres, requests::Request, states, text};
use serde_json::{Value, json};

fn config(it: &Installation, url: &str) -> PathBuf {
    let text = format!(
        "database:\n  type: postgres\n  connection_string: {url}\nscheduler:\n  interval_seconds: 2\nexecutor:\n  parallelism: 4\n"
    );
    it.write("config.yaml", &text)
}

#[test]
fn run_succeeds_after_a_wrong_password_is_corrected() {
    let it = Installation::new();
    let postgres = Postgres::start();
    let create = |url: &str, more: &[&str]| {
        let config = config(&it, url);
        let mut arguments = vec!["--config", config.to_str().expect("text")];
        arguments.extend(more);
        it.dev("create", &arguments)
    };

    // What is wrong with the server is said in its words, without the password.
    let wrong = postgres.url.replace(postgres.password(), "hunter2");
    let refused = create(&wrong, &[]).refused(&["password authentication failed"]);
    assert!(
        refused.stdout.contains("does not have the requested configuration") && refused.stdout.contains("retries"),
        "{refused:#?}"
    );
    assert!(!refused.stderr.contains("hunter2"), "{refused:#?}");
    assert_eq!(it.dev("env show", &["--json"]).json()["state"], "degraded");

    // The same command with the right one goes on from there.
    create(&postgres.url, &[]).succeeded();
    let shown = it.dev("env show", &["--json"]).succeeded();
    assert_eq!(shown.json()["config"]["database"], json!({"type": "postgres"}));
    let again = create(&postgres.url, &[]).succeeded();
    assert!(again.stdout.contains("the connection string is not compared"), "{again:#?}");
    let updated = create(&format!("{}?connect_timeout=5", postgres.url), &["--update", "--json"]).succeeded().json();
    assert_eq!(updated["environment"]["generation"], 3, "{updated}");
    // What the API answers can be sent back: secrets that are not in it stay.
    let mut answered = updated["environment"]["config"].clone();
    let patch = |config: &Value| {
        let request = Request::new("PATCH /v1/environments/dev").json(&json!({"config": config}));
        request.send(&it.socket()).expect("an answer")
    };
    assert_eq!(patch(&answered).status, 200);
    answered["executor"]["parallelism"] = 3.into();
    let patched = patch(&answered).expect(&[202]);
    it.cli(&["operations", "wait", text(&patched["operation"]["id"])]).succeeded();
    let sqlite = it.write("sqlite.yaml", &integration_tests::config(2));
    it.dev("create", &["--update", "--config", sqlite.to_str().expect("text")])
        .refused(&["database.type", "create another environment"]);

    it.upload("outcomes.py");
    let (done, run) = it.run_dag("retried", &["--run-id", "again"]);
    done.succeeded();
    assert_eq!(states(&run), [("flaky".to_owned(), "success".to_owned(), 2)]);
    assert!(it.task_log(&run, "flaky", &["--try", "1"]).contains("the first try fails"));
    let (done, run) = it.run_dag("mapped", &["--run-id", "many", "--conf", "{\"of\": [\"16\"]}"]);
    done.succeeded();
    assert_eq!(states(&run).len(), 5, "{run}");
    assert_eq!(run["conf"], json!({"of": ["16"]}));
    assert!(it.task_log(&run, "total", &[]).contains("total 14 for {'of': ['16']}"));
    let listed = it.dev("runs list", &["--json"]).succeeded().json();
    assert_eq!(listed["total_entries"], 2);
    let listed = it.dev("runs list", &["--dag-id", "mapped", "--json"]).succeeded().json();
    assert_eq!(text(&listed["dag_runs"][0]["dag_run_id"]), "many");
    it.dev("runs show", &["--dag-id", "mapped", "--run-id", "none"]).refused(&["no run none"]);
    assert!(it.dev("dags list", &[]).succeeded().stdout.contains("branching"));

    // Every noun is read from the server, and changed through the tick.
    assert!(it.dev("dags show", &["--dag-id", "mapped"]).succeeded().stdout.contains("square"));
    it.dev("variables set", &["greeting", "hello"]).succeeded();
    assert!(it.dev("variables list", &[]).succeeded().stdout.contains("greeting"));
    assert!(it.dev("pools list", &[]).succeeded().stdout.contains("default_pool"));
    for noun in ["connections list", "dags errors", "backfills list"] {
        it.dev(noun, &[]).succeeded();
    }
    it.upload("backfilled.py");
    let dates = ["--dag-id", "backfilled", "--from-date", "2026-01-01", "--to-date", "2026-01-01"];
    let backfill = it.dev("backfills create", &[&dates[..], &["--wait", "--json"]].concat()).succeeded().json();
    assert_eq!(backfill["dag_runs"][0]["state"], "success", "{backfill}");
    assert!(it.dev("backfills list", &["--dag-id", "backfilled"]).succeeded().stdout.contains("completed"));
    it.dev("tasks clear", &["--dag-id", "mapped", "--run-id", "many", "--task-id", "total"]).succeeded();
    eventually("the second try of the cleared task", || {
        let arguments = ["--dag-id", "mapped", "--run-id", "many", "--json"];
        let run = it.dev("runs show", &arguments).succeeded().json();
        states(&run).contains(&("total".to_owned(), "success".to_owned(), 2)).then_some(())
    });

    // After a crash of the daemon, and of all that ran on its Local Modal, everything is there.
    it.dev("dags trigger", &["--dag-id", "mapped", "--run-id", "interrupted"]).succeeded();
    it.kill();
    let ended = eventually("the end of the interrupted run", || {
        let run = it.dev("runs show", &["--dag-id", "mapped", "--run-id", "interrupted", "--json"]).succeeded().json();
        matches!(text(&run["state"]), "success" | "failed").then_some(run)
    });
    // An attempt that the crash ended has failed; it is not carried out again without a retry.
    assert!(states(&ended).iter().all(|(_, _, tries)| *tries <= 1), "{ended}");

    // A certificate is there to prove the server by, and this one has none.
    let proved = format!("{}\n  root_certificate: \"-----BEGIN CERTIFICATE-----\"", postgres.url);
    create(&proved, &["--update"]).refused(&["SSL"]);

    for secret in [postgres.url.as_str(), postgres.password(), "pass%word", "hunter2"] {
        it.has_in_no_file(secret);
    }
}
