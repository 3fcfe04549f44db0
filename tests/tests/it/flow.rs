//! What people do from the first command on: environments, DAG files, runs, logs.

use integration_tests::{Installation, config, dag_file, eventually, states, text, workspace};

#[test]
fn first_run_succeeds_after_create_and_upload() {
    let it = Installation::new();
    let created = it.create_dev(60).succeeded();
    let steps = [
        "Parse the configuration",
        "Create the Modal App: airflow-serverless-dev",
        "Create the Volume: airflow-dags-dev",
        "Create the Dict: airflow-state-dev",
        "Store the Secret: airflow-secrets-dev",
        "Prepare the Python runtime",
        "Deploy the scheduler",
        "Initialize the database schema",
    ];
    let places: Vec<_> = steps.iter().map(|step| created.stderr.find(step)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{created:#?}");

    let again = it.create_dev(60).succeeded();
    assert!(again.stdout.contains("exists") && again.stdout.contains("nothing was changed"), "{again:#?}");
    let other = it.write("other.yaml", &config(61));
    let other = other.to_str().expect("text");
    it.dev("create", &["--config", other]).refused(&["another configuration", "--update"]);
    assert_eq!(it.dev("env show", &["--json"]).json()["config"]["scheduler"]["interval_seconds"], 60);
    it.dev("create", &["--config", other, "--update"]).succeeded();
    let environment = it.dev("env show", &["--json"]).json();
    assert_eq!(environment["config"]["scheduler"]["interval_seconds"], 61);
    assert_eq!((&environment["state"], &environment["observed_generation"]), (&"ready".into(), &2.into()));

    let etl = workspace().join("examples/dags/etl.py");
    let etl = etl.to_str().expect("text");
    it.dev("dags create", &["--file", etl]).succeeded();
    let (done, run) = it.run_dag("etl", &["--run-id", "first"]);
    done.succeeded();
    assert_eq!(run["state"], "success");
    let once = |task: &str| (task.to_owned(), "success".to_owned(), 1);
    assert_eq!(states(&run), ["extract", "load", "report", "transform"].map(once));
    assert!(it.task_log(&run, "load", &[]).contains("Total order value is 1236.70"));
    assert!(it.task_log(&run, "report", &[]).contains("run first: total 1236.7"));

    let handed_on =
        |task: &str| std::fs::read_to_string(it.volume().join(format!("xcom/etl/first/{task}/return_value")));
    assert_eq!(handed_on("transform").expect("an XCom on the Volume"), "1236.7");
    assert_eq!(handed_on("report").expect("what the shell command printed"), "\"run first: total 1236.7\"");

    let files = it.dev("dags list", &["--json"]).json();
    assert_eq!(
        (&files["files"][0]["filename"], &files["files"][0]["dags"][0]["dag_id"]),
        (&"etl.py".into(), &"etl".into())
    );
    let runs = it.dev("runs list", &["--dag-id", "etl", "--json"]).json();
    assert!(runs["dag_runs"].as_array().expect("runs").iter().any(|run| run["dag_run_id"] == "first"), "{runs}");
    let shown = it.dev("runs show", &["--dag-id", "etl", "--run-id", "first"]).succeeded();
    assert!(shown.stdout.contains("transform"), "{shown:#?}");
    it.dev("dags trigger", &["--dag-id", "etl", "--run-id", "first"]).refused(&["'first'", "already"]);
    it.dev("dags trigger", &["--dag-id", "elt"]).refused(&["no DAG 'elt'", "dags list"]);
}

#[test]
fn tasks_end_like_on_stock_airflow() {
    let it = Installation::with_dev(60);
    it.upload("outcomes.py");

    let (done, run) = it.run_dag("retried", &[]);
    done.succeeded();
    assert_eq!(states(&run), [("flaky".into(), "success".into(), 2)]);
    assert!(it.task_log(&run, "flaky", &["--try", "1"]).contains("RuntimeError: the first try fails"));

    let (done, run) = it.run_dag("failing", &[]);
    assert_eq!((done.code, &run["state"]), (1, &"failed".into()));
    assert_eq!(states(&run), [("fails".into(), "failed".into(), 1), ("never".into(), "upstream_failed".into(), 0)]);
    assert!(it.task_log(&run, "fails", &[]).contains("ValueError: boom"));

    let (_, run) = it.run_dag("branching", &[]);
    let ended: Vec<_> = states(&run).into_iter().map(|(task, state, _)| format!("{task} {state}")).collect();
    assert_eq!(ended, ["choose success", "left success", "right skipped"]);

    let (_, run) = it.run_dag("mapped", &["--conf", r#"{"day": 7}"#]);
    assert_eq!(run["conf"]["day"], 7);
    assert_eq!(states(&run).iter().filter(|(task, state, _)| task == "square" && state == "success").count(), 3);
    assert!(it.task_log(&run, "total", &[]).contains("total 14 for {'day': 7}"));
    it.task_log(&run, "square", &["--map-index", "2"]);
    assert_eq!(it.tracebacks(), "", "the scheduler or a worker failed on the way");
}

#[test]
fn dag_files_are_updated_and_deleted() {
    let it = Installation::with_dev(60);
    it.upload("greeting.py");
    it.upload("pair.py");
    let (_, run) = it.run_dag("greeting", &[]);
    assert!(it.task_log(&run, "greet", &[]).contains("hello"));
    let followed = it.dev("dags trigger", &["--dag-id", "greeting", "--wait"]).succeeded();
    let seen: Vec<_> = followed.stderr.lines().filter_map(|line| line.strip_prefix("greet ")).collect();
    let order = ["scheduled", "queued", "running", "success"];
    let places: Vec<_> = seen.iter().map(|state| order.iter().position(|known| known == state)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "the task went backwards: {seen:?}");

    let old = std::fs::read_to_string(workspace().join("tests/dags/greeting.py")).expect("the DAG file");
    let new = it.write("greeting.py", &old.replace("hello", "good morning"));
    let new = new.to_str().expect("text");
    it.dev("dags create", &["--file", new]).refused(&["greeting.py exists", "dags update"]);
    it.dev("dags update", &["--file", new]).succeeded();
    let (_, run) = it.run_dag("greeting", &[]);
    assert!(it.task_log(&run, "greet", &[]).contains("good morning"), "the run after an update has the old code");
    let unchanged = it.dev("dags create", &["--file", new, "--json"]).succeeded().json();
    assert_eq!(unchanged["outcome"], "unchanged");
    let missing = it.write("missing.py", &old);
    it.dev("dags update", &["--file", missing.to_str().expect("text")]).refused(&["no file missing.py", "dags create"]);

    it.dev("dags delete", &["--dag-id", "left_of_pair"]).refused(&["right_of_pair", "--force"]);
    let deleted = it.dev("dags delete", &["--dag-id", "left_of_pair", "--force", "--json"]).succeeded().json();
    assert_eq!(deleted["deactivated"], serde_json::json!(["left_of_pair", "right_of_pair"]));
    it.dev("dags delete", &["--dag-id", "greeting"]).succeeded();
    assert_eq!(it.dev("dags list", &["--json"]).json()["files"], serde_json::json!([]));
    it.dev("dags trigger", &["--dag-id", "greeting"]).refused(&["no DAG 'greeting'"]);
    it.dev("runs list", &["--dag-id", "greetings"]).refused(&["no DAG greetings"]);
    it.dev("dags delete", &["--dag-id", "greeting"]).refused(&["no DAG greeting"]);
    let runs = it.dev("runs list", &["--dag-id", "greeting", "--json"]).json();
    assert_eq!(runs["total_entries"], 3, "the history of a deleted DAG is kept");
}

#[test]
fn cron_starts_scheduled_runs() {
    let it = Installation::with_dev(1);
    it.upload("steady.py");
    let scheduled = || {
        let runs = it.dev("runs list", &["--dag-id", "steady", "--json"]).json();
        let finished = |run: &&serde_json::Value| run["run_type"] == "scheduled" && run["state"] == "success";
        (runs["dag_runs"].as_array()?.iter().filter(finished).count() >= 2).then_some(())
    };
    eventually("two scheduled runs", scheduled);

    it.dev("dags pause", &["--dag-id", "steady"]).succeeded();
    let queued = it.dev("dags trigger", &["--dag-id", "steady", "--run-id", "later"]).succeeded();
    assert!(queued.stderr.contains("paused"), "{queued:#?}");
    it.dev("dags unpause", &["--dag-id", "steady"]).succeeded();
    eventually("the run that was queued while the DAG was paused", || {
        let run = it.dev("runs show", &["--dag-id", "steady", "--run-id", "later", "--json"]).json();
        (text(&run["state"]) == "success").then_some(())
    });
    assert_eq!(it.tracebacks(), "", "the scheduler or a worker failed on the way");
}

#[test]
fn dag_is_refused_until_its_plugin_is_uploaded() {
    let it = Installation::with_dev(60);
    let (report, plugin) = (dag_file("report.py"), dag_file("plugins/quarterly.py"));
    it.dev("dags create", &["--file", report.to_str().expect("text")]).refused(&["report.py:3", "'quarterly'"]);
    let uploaded = it.dev("dags create", &["--file", plugin.to_str().expect("text"), "--json"]).succeeded().json();
    let expected = serde_json::json!({"filename": "plugins/quarterly.py", "outcome": "created", "dags": []});
    assert!(expected.as_object().expect("fields").iter().all(|(key, value)| &uploaded[key] == value), "{uploaded}");
    it.upload("report.py");
    let run = eventually("the run for the one quarter", || {
        let runs = it.dev("runs list", &["--dag-id", "report", "--state", "success", "--json"]).succeeded().json();
        runs["dag_runs"].as_array()?.first().cloned()
    });
    assert!(it.task_log(&run, "sum_up", &[]).contains("from 2026-01-01 to 2026-04-01"), "{run}");
    let listed = it.dev("dags list", &["--json"]).succeeded().json();
    assert_eq!(listed["files"].as_array().map(Vec::len), Some(1), "a plugin is no DAG file: {listed}");
    assert_eq!(listed["files"][0]["dags"][0]["timetable_summary"], "quarterly");

    std::fs::create_dir(it.root().join("plugins")).expect("a folder");
    let broken = it.write("plugins/quarterly.py", "from airflow.plugins_manager import AirflowPlugin\n1 / 0\n");
    let broken = broken.to_str().expect("text");
    it.dev("dags update", &["--file", broken]).refused(&["plugins/quarterly.py:2", "ZeroDivisionError"]);
    let idle = it.write("plugins/quarterly.py", "QUARTERS = 4\n");
    let warned = it.dev("dags update", &["--file", idle.to_str().expect("text")]).succeeded();
    assert!(warned.stderr.contains("defines no plugin"), "{warned:#?}");
    let errors = eventually("the DAG that lost its timetable", || {
        let errors = it.dev("dags errors", &["--json"]).succeeded().json();
        (errors["total_entries"] == 1).then_some(errors)
    });
    assert_eq!(errors["import_errors"][0]["filename"], "report.py");

    it.dev("dags delete", &["--file", "plugins/monthly.py"]).refused(&["no file plugins/monthly.py"]);
    it.dev("dags delete", &["--file", "plugins/quarterly.py"]).succeeded();
    // It has no DAG any more by which it could be called.
    it.dev("dags delete", &["--file", "report.py"]).succeeded();
    assert_eq!(it.dev("dags errors", &["--json"]).succeeded().json()["total_entries"], 0);
}
