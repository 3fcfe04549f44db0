//! The words that people know from Airflow: runs and tasks that run again or are marked, variables, connections, pools.

use std::os::unix::fs::PermissionsExt;

use integration_tests::{Installation, config, eventually, requests::Request, states, text};
use serde_json::{Value, json};

/// The run once it is in this state.
fn reached(it: &Installation, dag_id: &str, run_id: &str, state: &str) -> Value {
    eventually(&format!("run {run_id} to be {state}"), || {
        let run = it.dev("runs show", &["--dag-id", dag_id, "--run-id", run_id, "--json"]).succeeded().json();
        (run["state"] == state).then_some(run)
    })
}

/// `task` or `task[index]` with its state.
fn names(list: &Value) -> Vec<String> {
    let name = |task: &Value| match task["map_index"].as_i64() {
        Some(index) if index >= 0 => format!("{}[{index}]", text(&task["task_id"])),
        _ => text(&task["task_id"]).to_owned(),
    };
    let mut names: Vec<_> = list["task_instances"].as_array().expect("tasks").iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn tasks_run_again_or_are_marked() {
    let it = Installation::new();
    it.create_dev(60).succeeded();
    it.upload("verbs.py");

    let mended = it.root().join("mended");
    let conf = json!({"mended": mended}).to_string();
    let (done, run) = it.run_dag("mended", &["--run-id", "m", "--conf", &conf]);
    assert_eq!((done.code, &run["state"]), (1, &"failed".into()));
    let run_m = ["--dag-id", "mended", "--run-id", "m"];
    let on = |command: &str, more: &[&str]| it.dev(command, &[&run_m, more].concat());
    let failed = on("tasks list", &["--state", "failed", "--json"]).succeeded().json();
    assert_eq!((names(&failed), &failed["total_entries"]), (vec!["fragile[1]".to_owned()], &1.into()));
    let page = on("tasks list", &["--limit", "1", "--offset", "3"]).succeeded();
    assert!(page.stdout.contains("1 of 4 tasks"), "{page:#?}");
    on("tasks retry", &["--task-id", "first"]).refused(&["has not failed", "tasks clear"]);
    on("tasks clear", &["--task-id", "frist"]).refused(&["no task 'frist'", "first, fragile, last"]);
    on("tasks clear", &["--task-id", "fragile", "--map-index", "9"]).refused(&["no map index 9", "indexes 0, 1"]);
    it.dev("runs clear", &["--dag-id", "mended", "--run-id", "n"]).refused(&["no run 'n'", "runs list"]);

    std::fs::write(&mended, "").expect("a file");
    let retried = on("tasks retry", &["--task-id", "fragile", "--json"]).succeeded().json();
    assert_eq!(names(&retried), ["fragile[1]", "last"]);
    let run = reached(&it, "mended", "m", "success");
    let tries: Vec<_> =
        states(&run).into_iter().map(|(task, state, tries)| format!("{task} {state} {tries}")).collect();
    assert_eq!(tries, ["first success 1", "fragile success 1", "fragile success 2", "last success 1"]);
    assert!(it.task_log(&run, "fragile", &["--map-index", "1", "--try", "1"]).contains("RuntimeError: broken"));
    on("runs clear", &["--only-failed"]).succeeded();
    assert_eq!(names(&on("runs clear", &["--json"]).succeeded().json()).len(), 4);
    reached(&it, "mended", "m", "success");
    let marked = on("tasks mark", &["--task-id", "last", "--state", "failed", "--json"]).succeeded().json();
    assert_eq!((names(&marked), &marked["task_instances"][0]["state"]), (vec!["last".to_owned()], &"failed".into()));
    on("tasks mark", &["--task-id", "last", "--state", "failed"]).refused(&["is failed already"]);
    assert_eq!(on("tasks mark", &["--task-id", "last", "--state", "running"]).code, 2);

    let shown = it.dev("dags show", &["--dag-id", "mended", "--json"]).succeeded().json();
    assert_eq!((&shown["owners"], &shown["tags"]), (&json!(["ada"]), &json!(["books", "nightly"])));
    assert!(shown["next_dagrun_run_after"].is_string(), "{shown}");
    let fragile = json!({"task_id": "fragile", "operator_name": "@task", "is_mapped": true,
        "downstream_task_ids": ["last"]});
    assert!(shown["tasks"].as_array().expect("tasks").contains(&fragile), "{shown}");
    let shown = it.dev("dags show", &["--dag-id", "mended"]).succeeded();
    assert!(shown.stdout.contains("verbs.py") && shown.stdout.contains("fragile[]"), "{shown:#?}");
    it.dev("dags show", &["--dag-id", "absent"]).refused(&["no DAG absent", "dags list"]);

    a_running_task_is_stopped(&it);
    let broken = it.volume().join("dags/broken.py");
    std::fs::write(broken, "import nowhere\n").expect("a file");
    it.dev("dags unpause", &["--dag-id", "endless"]).succeeded();
    let errors = it.dev("dags errors", &["--json"]).succeeded().json();
    assert_eq!((&errors["total_entries"], &errors["import_errors"][0]["line"]), (&1.into(), &1.into()), "{errors}");
    let errors = it.dev("dags errors", &[]).succeeded();
    assert!(
        errors.stdout.contains("broken.py:1 does not import") && errors.stdout.contains("'nowhere'"),
        "{errors:#?}"
    );
    assert_eq!(it.tracebacks(), "", "the scheduler or a worker failed on the way");
}

/// Clearing starts it anew, marking ends it, and so does marking its run.
fn a_running_task_is_stopped(it: &Installation) {
    let go = it.root().join("go");
    let conf = json!({"go": go}).to_string();
    let run = ["--dag-id", "endless", "--run-id", "e"];
    let on = |command: &str, more: &[&str]| it.dev(command, &[&run, more].concat());
    it.dev("dags trigger", &["--dag-id", "endless", "--run-id", "e", "--conf", &conf]).succeeded();
    let runs = |tries: i64| {
        eventually(&format!("try {tries} to run"), || {
            let list = on("tasks list", &["--json"]).succeeded().json();
            let task = &list["task_instances"][0];
            (task["state"] == "running" && task["try_number"] == tries).then_some(())
        });
    };
    runs(1);
    let cleared = on("tasks clear", &["--task-id", "sleeps", "--json"]).succeeded().json();
    assert_eq!(names(&cleared), ["sleeps"]);
    runs(2);
    on("tasks mark", &["--task-id", "sleeps", "--state", "success"]).succeeded();
    let ended = reached(it, "endless", "e", "success");
    assert_eq!(states(&ended), [("sleeps".to_owned(), "success".to_owned(), 2)]);
    on("runs clear", &[]).succeeded();
    runs(3);
    let failed = on("runs mark", &["--state", "failed", "--json"]).succeeded().json();
    assert_eq!((&failed["state"], states(&failed)[0].1.as_str()), (&"failed".into(), "failed"));
    let failed = it.dev("runs list", &["--dag-id", "endless", "--state", "failed", "--json"]).succeeded().json();
    assert_eq!((&failed["total_entries"], &failed["dag_runs"][0]["dag_run_id"]), (&1.into(), &"e".into()));
    let none = it.dev("runs list", &["--dag-id", "endless", "--state", "running", "--json"]).succeeded().json();
    assert_eq!(none["total_entries"], 0);
}

#[test]
fn variables_connections_and_pools() {
    let it = Installation::new();
    let with_env = format!("{}env:\n  AIRFLOW_VAR_REGION: ${{REGION}}\n", config(60));
    let with_env = it.write("config.yaml", &with_env);
    let created = it
        .command("airflow-serverless")
        .args(["create", "--env", "dev", "--config"])
        .arg(&with_env)
        .env("REGION", "eu: 'west' #51w0rd")
        .output()
        .expect("the CLI runs");
    assert!(created.status.success(), "{created:?}");
    let shown = it.dev("env show", &["--json"]).succeeded().json();
    assert_eq!(shown["config"]["env"], json!({"AIRFLOW_VAR_REGION": null}));
    let again = it
        .command("airflow-serverless")
        .args(["create", "--env", "dev", "--config"])
        .arg(&with_env)
        .env("REGION", "us")
        .output()
        .expect("the CLI runs");
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && said.contains("values of `env` are not compared"), "{again:?}");
    let without_value = it.write("without.yaml", &format!("{}env:\n  NOTHING:\n", config(60)));
    let without_value = without_value.to_str().expect("text");
    it.dev("create", &["--update", "--config", without_value]).refused(&["env.NOTHING", "has no value"]);
    let other = ["create", "--env", "other", "--config", without_value];
    it.cli(&other).refused(&["env.NOTHING:", "has no value"]);
    let registry = std::fs::read(it.home().join("data/registry.db")).expect("the registry");
    assert!(!registry.windows(7).any(|window| window == b"#51w0rd"), "the registry has a value");
    it.upload("verbs.py");
    let path = |file: &std::path::Path| file.to_str().expect("text").to_owned();

    it.dev("variables set", &["plain", "visible", "--description", "no secret"]).succeeded();
    let from_stdin = it
        .command("airflow-serverless")
        .args(["variables", "set", "--env", "dev", "api_token", "-"])
        .write_stdin("tok-7f3a91\n")
        .output()
        .expect("the CLI runs");
    assert!(from_stdin.status.success(), "{from_stdin:?}");
    assert_eq!(it.dev("variables get", &["api_token"]).succeeded().stdout, "tok-7f3a91\n");
    let listed = it.dev("variables list", &[]).succeeded().stdout;
    assert!(listed.contains("no secret") && !listed.contains("visible"), "{listed}");
    let hidden = it.dev("variables list", &["--show-values", "--hide-sensitive"]).succeeded().stdout;
    assert!(hidden.contains("visible") && !hidden.contains("tok-7f3a91"), "{hidden}");
    it.dev("variables get", &["absent"]).refused(&["no variable 'absent'", "variables list"]);
    assert_eq!(it.dev("variables get", &["absent", "--default", "7"]).succeeded().stdout, "7\n");
    it.dev("variables set", &["not a key", "1"]).refused(&["alphanumeric"]);
    let file =
        it.write("new.json", r#"{"plain": "changed", "deep": {"a": [1]}, "noted": {"value": 2, "description": "n"}}"#);
    it.dev("variables import", &[&path(&file), "--action-on-existing-key", "fail"]).refused(&["plain", "nothing was"]);
    let imported = it.dev("variables import", &[&path(&file), "-a", "skip", "--json"]).succeeded().json();
    assert_eq!(imported, json!({"written": ["deep", "noted"], "skipped": ["plain"]}));
    let exported = it.root().join("out.json");
    it.dev("variables export", &[&path(&exported)]).succeeded();
    assert_eq!(std::fs::metadata(&exported).expect("a file").permissions().mode() & 0o777, 0o600);
    let content: Value = serde_json::from_slice(&std::fs::read(&exported).expect("a file")).expect("JSON");
    let expected = json!({"api_token": "tok-7f3a91", "deep": {"a": [1]}, "noted": {"value": 2, "description": "n"},
        "plain": {"value": "visible", "description": "no secret"}});
    assert_eq!(content, expected);
    it.dev("variables delete", &["deep"]).succeeded();
    let broken = it.write("broken.env", "A=1\nhunter2\n");
    let refused = it.dev("variables import", &[&path(&broken)]).refused(&["broken.env:2", "NAME=value"]);
    assert!(!refused.stderr.contains("hunter2"), "{refused:#?}");

    let uri = "postgres://loader:p%40ss-51w0rd@db.example:5433/dwh?sslmode=require";
    it.dev("connections add", &["warehouse", "--conn-uri", uri]).succeeded();
    it.dev("connections add", &["warehouse", "--conn-type", "http"]).refused(&["exist already: warehouse"]);
    it.dev("connections add", &["api", "--conn-json", r#"{"conn_type": "http", "host": "h", "extra": {"a": 1}}"#])
        .succeeded();
    let shown = it.dev("connections get", &["warehouse", "--json"]).succeeded().json();
    assert_eq!((&shown["port"], &shown["password"], &shown["uri"]), (&5433.into(), &"***".into(), &Value::Null));
    let shown = it.dev("connections get", &["warehouse", "--show-values"]).succeeded().stdout;
    assert!(shown.contains("p@ss-51w0rd"), "{shown}");
    let listed = it.dev("connections list", &[]).succeeded().stdout;
    assert!(listed.contains("warehouse") && listed.contains("db.example") && !listed.contains("w0rd"), "{listed}");
    for format in ["json", "yaml", "env"] {
        let file = path(&it.root().join(format!("connections.{format}")));
        it.dev("connections export", &[&file]).succeeded();
        it.dev("connections delete", &["api"]).succeeded();
        let imported = it.dev("connections import", &[&file, "--json"]).succeeded().json();
        assert_eq!(imported, json!({"written": ["api"], "skipped": ["warehouse"]}), "{format}");
        let shown = it.dev("connections get", &["api", "--json"]).succeeded().json();
        assert_eq!((&shown["host"], &shown["extra"]), (&"h".into(), &"{\"a\": 1}".into()), "{format}");
    }
    let twice = ["both", "--conn-type", "http", "--conn-login", "-", "--conn-password", "-"];
    it.dev("connections add", &twice).refused(&["for one value only"]);
    it.dev("variables export", &["variables.env"]).refused(&["would be JSON", ".json"]);
    it.dev("connections delete", &["absent"]).refused(&["no connection 'absent'", "connections list"]);

    it.dev("pools set", &["few", "2", "for the API", "--include-deferred"]).succeeded();
    it.dev("pools set", &["few", "-3", "x"]).refused(&["slots must be"]);
    let pool = json!({"name": "few", "slots": 2, "description": "for the API", "include_deferred": true});
    assert_eq!(it.dev("pools get", &["few", "--json"]).succeeded().json(), pool);
    let file = path(&it.root().join("pools.json"));
    it.dev("pools export", &[&file]).succeeded();
    it.dev("pools delete", &["few"]).succeeded();
    it.dev("pools get", &["few"]).refused(&["no pool \"few\"", "pools list"]);
    it.dev("pools delete", &["default_pool"]).refused(&["cannot be deleted"]);
    it.dev("pools import", &[&file]).succeeded();
    assert_eq!(it.dev("pools list", &["--json"]).succeeded().json()["pools"][1], pool);

    // What the API answers can be sent back: the value that is not in it stays.
    let mut config_of_dev = it.dev("env show", &["--json"]).succeeded().json()["config"].clone();
    config_of_dev["executor"]["parallelism"] = 3.into();
    let patch = Request::new("PATCH /v1/environments/dev").json(&json!({"config": config_of_dev}));
    let patched = patch.send(&it.socket()).expect("an answer").expect(&[202]);
    it.cli(&["operations", "wait", text(&patched["operation"]["id"])]).succeeded();

    let (done, run) = it.run_dag("secretive", &[]);
    done.succeeded();
    let log = it.task_log(&run, "speaks", &[]);
    assert!(log.contains("variables: *** visible") && log.contains("connection: db.example ***"), "{log}");
    assert!(log.contains("region: eu: 'west' #51w0rd"), "{log}");
    let reserved = it.write("bad.yaml", &format!("{}env:\n  AIRFLOW__CORE__FERNET_KEY: x\n", config(60)));
    it.dev("create", &["--config", &path(&reserved), "--update"]).refused(&["bad.yaml", "is reserved"]);
    let without = it.write("without.yaml", &config(60));
    it.dev("create", &["--config", &path(&without), "--update"]).succeeded();
    let (done, run) = it.run_dag("secretive", &[]);
    done.succeeded();
    assert!(it.task_log(&run, "speaks", &[]).contains("region: unknown"), "the variable was not removed");
    assert_eq!(it.tracebacks(), "", "the scheduler or a worker failed on the way");
    let published = std::fs::read(it.volume().join("data/airflow.db")).expect("the database");
    for secret in ["tok-7f3a91", "p@ss-51w0rd", "p%40ss-51w0rd"] {
        let found = published.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{secret} lies in the database in clear text");
        assert!(!it.log().contains(secret) && !log.contains(secret), "{secret} is in a log");
    }
}
