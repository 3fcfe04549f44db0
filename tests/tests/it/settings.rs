//! Each setting of `config.yaml` does what it says, and a changed one does so after `create --update`.

use integration_tests::{Installation, config, eventually, states};

#[test]
fn settings_take_effect() {
    let it = Installation::new();
    let file = it.write(
        "config.yaml",
        "database:\n  type: sqlite\nscheduler:\n  interval_seconds: 3600\n\
         executor:\n  parallelism: ${PARALLEL}\n  task_timeout: 3\nairflow:\n  dags_are_paused_at_creation: true\n",
    );
    let file = file.to_str().expect("text");
    it.dev("create", &["--config", file]).refused(&["parallelism:6", "${PARALLEL}"]);
    let created = it
        .command("airflow-serverless")
        .env("PARALLEL", "2")
        .args(["create", "--env", "dev", "--config", file])
        .output();
    assert!(created.is_ok_and(|output| output.status.success()));

    // dags_are_paused_at_creation
    it.upload("limits.py");
    let journal = it.root().join("journal");
    let conf = serde_json::json!({"journal": journal}).to_string();
    it.dev("dags trigger", &["--dag-id", "crowd", "--run-id", "one", "--conf", &conf]).succeeded();
    let files = it.dev("dags list", &["--json"]).json();
    assert_eq!(files["files"][0]["dags"][0]["is_paused"], true, "{files}");
    let show = || it.dev("runs show", &["--dag-id", "crowd", "--run-id", "one", "--json"]).json();
    assert_eq!(show()["state"], "queued", "a paused DAG ran");
    it.dev("dags unpause", &["--dag-id", "crowd"]).succeeded();

    // parallelism; no cron helps here, finished tasks wake the scheduler by themselves
    eventually("the end of the run", || (show()["state"] == "success").then_some(()));
    let journal = std::fs::read_to_string(journal).expect("the tasks' journal");
    let mut running = 0;
    let most = journal.chars().map(|c| {
        running += if c == '+' { 1 } else { -1 };
        running
    });
    assert!(most.max() <= Some(2), "more than two tasks at once: {journal}");
    assert_eq!(journal.len(), 12, "six tasks begin and end: {journal}");

    // task_timeout
    it.dev("dags unpause", &["--dag-id", "endless"]).succeeded();
    let (done, run) = it.run_dag("endless", &[]);
    assert_eq!((done.code, states(&run)), (1, vec![("never_ends".into(), "failed".into(), 1)]));
    assert!(it.task_log(&run, "never_ends", &[]).to_lowercase().contains("timeout"));

    // All of it changed
    let changed = it.write("changed.yaml", &config(1));
    it.dev("create", &["--config", changed.to_str().expect("text"), "--update"]).succeeded();
    it.upload("steady.py");
    eventually("a run that the new interval brings about", || {
        let runs = it.dev("runs list", &["--dag-id", "steady", "--json"]).json();
        (runs["dag_runs"][0]["run_type"] == "scheduled").then_some(())
    });
}

/// With strict Volumes a commit or reload that is missing somewhere shows, as it would on Modal.
#[test]
fn airflow_runs_on_strict_volumes() {
    let it = Installation::new();
    it.set_up_daemon("local_modal:\n  volumes: strict\n");
    it.create_dev(2).succeeded();
    let etl = integration_tests::workspace().join("examples/dags/etl.py");
    it.dev("dags create", &["--file", etl.to_str().expect("text")]).succeeded();
    for run_id in ["first", "second"] {
        let (done, run) = it.run_dag("etl", &["--run-id", run_id]);
        done.succeeded();
        let once = |task: &str| (task.to_owned(), "success".to_owned(), 1);
        assert_eq!(states(&run), ["extract", "load", "report", "transform"].map(once), "{}", it.tracebacks());
        assert!(it.task_log(&run, "load", &[]).contains("Total order value is 1236.70"));
    }
    it.upload("outcomes.py");
    let (_, run) = it.run_dag("mapped", &["--conf", r#"{"day": 7}"#]);
    assert!(it.task_log(&run, "total", &[]).contains("total 14 for {'day': 7}"));
    let (_, run) = it.run_dag("retried", &[]);
    assert_eq!(states(&run), [("flaky".into(), "success".into(), 2)]);
}

#[test]
fn settings_of_the_daemon_are_checked() {
    let it = Installation::new();
    it.set_up_daemon("local_modal:\n  volume: strict\n");
    let refused = it.cli(&["daemon", "start"]);
    assert!(refused.code != 0 && refused.stderr.contains("airflowd.yaml"), "{refused:#?}");
    it.set_up_daemon("local_modal:\n  ignore_gpu: true\n");
    it.cli(&["daemon", "start"]).succeeded();
}
