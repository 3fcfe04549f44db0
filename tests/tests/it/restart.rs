//! Whatever happens to the daemon, what it accepted is there afterwards and comes to its end.

use std::path::Path;

use integration_tests::{Installation, eventually, states, text};
use serde_json::Value;

fn run(it: &Installation, run_id: &str) -> Value {
    it.dev("runs show", &["--dag-id", "patient", "--run-id", run_id, "--json"]).succeeded().json()
}

fn finished(it: &Installation, run_id: &str) -> Value {
    eventually("the end of the run", || {
        let run = run(it, run_id);
        matches!(text(&run["state"]), "success" | "failed").then_some(run)
    })
}

/// Starts a run whose task waits; returns once it does. The file that lets it go on is the second one.
fn start_patient(it: &Installation, run_id: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let (started, go) = (it.root().join(format!("{run_id}-started")), it.root().join(format!("{run_id}-go")));
    let conf = serde_json::json!({"started": started, "go": go}).to_string();
    it.dev("dags trigger", &["--dag-id", "patient", "--run-id", run_id, "--conf", &conf]).succeeded();
    eventually("the start of the task", || started.exists().then_some(()));
    eventually("a task that runs and is shown so", || {
        (states(&run(it, run_id)) == [("wait".into(), "running".into(), 1)]).then_some(())
    });
    (started, go)
}

fn touch(path: &Path) {
    std::fs::write(path, "").expect("a written file");
}

#[test]
fn runs_survive_stops_and_crashes() {
    let it = Installation::with_dev(2);
    it.upload("patient.py");
    it.upload("steady.py");

    // A crash while a task runs: the try is lost, the retry is not.
    let (_, go) = start_patient(&it, "crash");
    it.kill();
    touch(&go);
    let run = finished(&it, "crash");
    assert_eq!(states(&run), [("wait".into(), "success".into(), 2)], "{run}");

    // The same with an orderly stop.
    let (_, go) = start_patient(&it, "stop");
    it.cli(&["daemon", "stop"]).succeeded();
    assert_eq!(it.containers(), Vec::<u32>::new(), "containers outlived the daemon");
    touch(&go);
    let run = finished(&it, "stop");
    assert_eq!(states(&run), [("wait".into(), "success".into(), 2)], "{run}");

    // Idle: the environment, files, history and schedules are there.
    it.kill();
    assert_eq!(it.dev("env show", &["--json"]).json()["state"], "ready");
    let files = it.dev("dags list", &["--json"]).json();
    assert_eq!(files["files"].as_array().map(Vec::len), Some(2), "{files}");
    assert_eq!(text(&self::run(&it, "crash")["state"]), "success");
    let count = || it.dev("runs list", &["--dag-id", "steady", "--json"]).json()["total_entries"].as_i64();
    let before = count();
    eventually("a run that the schedule starts after the restart", || (count() > before).then_some(()));
    let (_, go) = start_patient(&it, "after");
    touch(&go);
    assert_eq!(states(&finished(&it, "after")), [("wait".into(), "success".into(), 1)]);
}

#[test]
fn interrupted_creation_completes_after_a_crash() {
    // The moments are those at which a step has just begun.
    for step in
        ["Create the Modal App", "Prepare the Python runtime", "Deploy the scheduler", "Initialize the database"]
    {
        let it = Installation::new();
        let config = it.write("config.yaml", &integration_tests::config(60));
        let mut creation = it.spawn(&["create", "--env", "dev", "--config", config.to_str().expect("text")]);
        eventually("the step before the crash", || {
            let operation = operation(&it)?;
            let steps = operation["steps"].as_array()?;
            let begun = |s: &&Value| text(&s["title"]).starts_with(step) && s["state"] != "pending";
            steps.iter().find(begun).map(|_| ())
        });
        it.kill();
        creation.wait().expect("the CLI ends");
        eventually("the environment after the crash", || {
            (it.dev("env show", &["--json"]).json()["state"] == "ready").then_some(())
        });
        assert_eq!(operation(&it).expect("the operation")["state"], "succeeded", "{step}");
        it.create_dev(60).succeeded();
    }
}

/// The newest operation, read from the registry's file without the daemon.
fn operation(it: &Installation) -> Option<Value> {
    let script = "import sqlite3, sys, json\n\
                  c = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True)\n\
                  r = c.execute('SELECT state, steps FROM operation ORDER BY created_at DESC LIMIT 1').fetchone()\n\
                  print(json.dumps({'state': r[0], 'steps': json.loads(r[1])}))";
    let registry = it.home().join("data/registry.db");
    let output = std::process::Command::new("python3").args(["-c", script]).arg(registry).output().ok()?;
    serde_json::from_slice(&output.stdout).ok()
}
