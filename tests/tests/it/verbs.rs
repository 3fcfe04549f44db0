//! The words that people know from Airflow: runs and tasks that run again or are marked, variables, connections, pools.

use std::os::unix::fs::PermissionsExt;

use integration_tests::{Installation, config, dag_file, eventually, requests::Request, states, text};
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
fn tasks_are_retried_cleared_and_marked() {
    let it = Installation::with_dev(60);
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

    missing_logs_have_distinct_messages(&it);
    failed_run_reports_its_cause(&it);

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

    running_task_is_stopped(&it);
    question_is_answered(&it);
    duplicate_dag_ids_are_reported(&it);
    let escapes = it.volume().join("dags/esc\u{1b}[2Jape.py");
    std::fs::write(escapes, "NUMBER = 1\n").expect("a file");
    let broken = it.volume().join("dags/broken.py");
    std::fs::write(broken, "import nowhere  # a DAG\n").expect("a file");
    it.dev("dags unpause", &["--dag-id", "endless"]).succeeded();
    let errors = it.dev("dags errors", &["--json"]).succeeded().json();
    assert_eq!((&errors["total_entries"], &errors["import_errors"][0]["line"]), (&1.into(), &1.into()), "{errors}");
    let errors = it.dev("dags errors", &[]).succeeded();
    assert!(
        errors.stdout.contains("broken.py:1 does not import") && errors.stdout.contains("'nowhere'"),
        "{errors:#?}"
    );
    let listed = it.dev("dags list", &[]).succeeded().stdout;
    let row = listed.lines().find(|line| line.starts_with(r"esc\u{1b}[2Jape.py")).expect("its row");
    assert!(row.trim_end().ends_with("no DAGs"), "{listed}");
    assert_eq!(it.tracebacks(), "", "the scheduler or a worker failed on the way");
}

/// Of run `m` of `mended`, whose task `last` has never begun.
fn missing_logs_have_distinct_messages(it: &Installation) {
    let cases: [(&[&str], &[&str]); 7] = [
        (&["fragile"], &["is mapped", "0 to 1", "--map-index"]),
        (&["first", "--map-index", "0"], &["is not mapped", "no instance 0"]),
        (&["fragile", "--map-index", "7"], &["no instance 7", "0 to 1"]),
        (&["frist"], &["no task \"frist\"", "first, fragile, last"]),
        (&["first", "--try", "5"], &["no try 5", "there was 1"]),
        (&["first", "--try", "0"], &["no try 0", "there was 1"]),
        (&["last"], &["has not started", "upstream_failed"]),
    ];
    for (arguments, parts) in cases {
        let words = [&["--dag-id", "mended", "--run-id", "m", "--task-id"], arguments].concat();
        it.dev("tasks logs", &words).refused(parts);
        if arguments != ["last"] {
            it.dev("tasks logs", &[&words[..], &["--follow"]].concat()).refused(parts);
        }
    }
    let misspelt = it.dev("tasks list", &["--dag-id", "mended", "--run-id", "m", "--state", "faild"]);
    assert!(misspelt.code == 2 && misspelt.stderr.contains("`up_for_retry`"), "{misspelt:#?}");
    let misspelt = it.dev("runs list", &["--state", "faild"]);
    assert!(misspelt.code == 2 && misspelt.stderr.contains("`running`, `success`"), "{misspelt:#?}");
    for path in ["runs?state=faild", "dags/mended/runs/m/tasks?state=faild"] {
        let answer = Request::new(format!("GET /v1/environments/dev/{path}")).send(&it.socket()).expect("an answer");
        assert!(answer.status == 400 && answer.body.contains("`success`"), "{answer:?}");
    }
}

/// On the terminal: the last lines of the log, and the command for the full log.
fn failed_run_reports_its_cause(it: &Installation) {
    let failed = it.dev(
        "dags trigger",
        &["--dag-id", "mended", "--logical-date", "2026-01-31", "--conf", r#"{"mended": "/nowhere"}"#, "--wait"],
    );
    assert!(failed.code == 1 && failed.stderr.contains("  RuntimeError: broken\n"), "{failed:#?}");
    let command = failed.stderr.lines().find_map(|line| line.strip_prefix("full log: ")).expect("a command");
    let mut shell = std::process::Command::new("sh");
    let path = format!("{}:/usr/bin:/bin", it.program("airflow-serverless").parent().expect("a folder").display());
    let shown = shell.args(["-c", command]).envs(it.variables()).env("PATH", path).output().expect("a shell");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("RuntimeError: broken"), "{command}: {shown}");
    let runs = it.dev("runs list", &["--dag-id", "mended", "--json"]).succeeded().json();
    let dates: Vec<_> = runs["dag_runs"].as_array().expect("runs").iter().map(|run| &run["logical_date"]).collect();
    assert!(dates.contains(&&json!("2026-01-31T00:00:00Z")), "{dates:?}");
}

/// Clearing starts it anew, marking ends it, and so does marking its run.
fn running_task_is_stopped(it: &Installation) {
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
fn variables_connections_and_pools_are_managed() {
    let it = Installation::new();
    let with_env = format!(
        "{}env:\n  AIRFLOW_VAR_REGION: ${{REGION}}\n  PARTNER_API_KEY: k3y-0f-partner\n  PARTNER_NAME: n4me-of-partner\n",
        config(60)
    );
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
    let names = json!({"AIRFLOW_VAR_REGION": null, "PARTNER_API_KEY": null, "PARTNER_NAME": null});
    assert_eq!(shown["config"]["env"], names);
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
    let file =
        it.write("new.json", r#"{"plain": "changed", "deep": {"a": [1]}, "noted": {"value": 2, "description": "n"}}"#);
    it.dev("variables import", &[&path(&file), "--action-on-existing-key", "fail"]).refused(&["plain", "nothing was"]);
    let imported = it.dev("variables import", &[&path(&file), "-a", "skip", "--json"]).succeeded().json();
    assert_eq!(imported, json!({"written": ["deep", "noted"], "skipped": ["plain"]}));
    dag_files_see_the_environment(&it);
    let exported = it.root().join("out.json");
    it.dev("variables export", &[&path(&exported)]).succeeded();
    assert_eq!(std::fs::metadata(&exported).expect("a file").permissions().mode() & 0o777, 0o600);
    let content_before = std::fs::read(&exported).expect("a file");
    let content: Value = serde_json::from_slice(&content_before).expect("JSON");
    let expected = json!({"api_token": "tok-7f3a91", "deep": {"a": [1]}, "noted": {"value": 2, "description": "n"},
        "plain": {"value": "visible", "description": "no secret"}});
    assert_eq!(content, expected);
    it.dev("variables delete", &["deep"]).succeeded();
    it.dev("variables export", &[&path(&exported)]).refused(&["out.json exists already", "`--force` replaces it"]);
    assert_eq!(std::fs::read(&exported).expect("a file"), content_before, "the file was replaced");
    std::fs::set_permissions(&exported, std::fs::Permissions::from_mode(0o644)).expect("a file of ours");
    it.dev("variables export", &["--force", &path(&exported)]).succeeded();
    assert!(!std::fs::read_to_string(&exported).expect("a file").contains("deep"));
    assert_eq!(std::fs::metadata(&exported).expect("a file").permissions().mode() & 0o777, 0o600);
    assert!(it.dev("variables export", &["/dev/stdout"]).succeeded().stdout.contains("visible"));
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
        it.dev("connections export", &[&file]).refused(&["exists already", "`--force`"]);
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
    it.dev("connections add", &["a b", "--conn-type", "http"]).refused(&["'a b'", "1 to 200 letters"]);
    odd_names_and_values_are_kept(&it);

    it.dev("pools set", &["few", "2", "for the API", "--include-deferred"]).succeeded();
    it.dev("pools set", &["few", "-3", "x"]).refused(&["slots must be"]);
    let pool = json!({"name": "few", "slots": 2, "description": "for the API", "include_deferred": true});
    assert_eq!(it.dev("pools get", &["few", "--json"]).succeeded().json(), pool);
    let file = path(&it.root().join("pools.json"));
    it.dev("pools export", &[&file]).succeeded();
    it.dev("pools export", &[&file]).refused(&["exists already", "`--force`"]);
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
    assert!(log.contains("environment: *** n4me-of-partner"), "{log}");
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

/// By the command line, in files and in URLs.
fn odd_names_and_values_are_kept(it: &Installation) {
    let names =
        ["a/b", "a/../b", " a b ", "50%", "50%25", "#1", "a?b=1", "gr\u{fc}\u{df}e", "a..b", "tab\there", "\\\"&+;"];
    let longest = "\u{e4}".repeat(250);
    let values = ["", "7", "1.10", "{\"a\":1}", "line\nbreak\n", "\"quoted\"", "null", "\u{fc}", " ", "1e5", "[1, 2]"];
    let mut entries: serde_json::Map<String, Value> =
        names.iter().zip(values).map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    entries.insert(longest.clone(), json!({"value": {"value": [true, null]}, "description": "why\n\u{e4}"}));
    let file = it.write("odd.json", &Value::Object(entries).to_string());
    let before = it.dev("variables export", &["-"]).succeeded().stdout;
    it.dev("variables import", &[file.to_str().expect("text")]).succeeded();
    let exported = it.root().join("exported.json");
    let export = || {
        it.dev("variables export", &["--force", exported.to_str().expect("text")]).succeeded();
        std::fs::read_to_string(&exported).expect("the export")
    };
    let all = export();
    let encoded = |name: &str| name.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    for (name, value) in names.iter().zip(values) {
        let path = format!("/v1/environments/dev/variables/{}", encoded(name));
        let found =
            Request::new(format!("GET {path}?show_values=true")).send(&it.socket()).expect("an answer").expect(&[200]);
        assert_eq!((&found["key"], &found["value"]), (&json!(name), &json!(value)), "{found}");
        let deleted = Request::new(format!("DELETE {path}")).send(&it.socket()).expect("an answer");
        assert_eq!(deleted.status, 204, "{deleted:?}");
    }
    it.dev("variables get", &[&longest]).succeeded();
    it.dev("variables delete", &[&longest]).succeeded();
    assert_eq!(it.dev("variables export", &["-"]).succeeded().stdout, before);
    it.dev("variables import", &[exported.to_str().expect("text")]).succeeded();
    assert_eq!(export(), all);
    for (name, value) in names.iter().zip(values).take(6) {
        assert_eq!(it.dev("variables get", &[name, "--json"]).succeeded().json()["value"], value, "{name}");
        it.dev("variables set", &[name, "another", "--description", "d"]).succeeded();
        assert_eq!(it.dev("variables get", &[name, "--json"]).succeeded().json()["value"], "another", "{name}");
    }
    for name in names.iter().chain([&longest.as_str()]) {
        it.dev("variables delete", &[name]).succeeded();
    }
    it.dev("variables set", &["", "1"]).refused(&["1 to 250 characters"]);
    it.dev("variables set", &[&format!("{longest}x"), "1"]).refused(&["1 to 250 characters, not 251"]);
    it.dev("variables set", &["a\nb", "1"]).refused(&["no line break"]);
    let dots = it.dev("variables delete", &[".."]);
    assert!(dots.code == 2 && dots.stderr.contains("is not an id that a URL can carry"), "{dots:#?}");
    it.dev("variables set", &["..", "dots"]).succeeded();
    let path = "/v1/environments/dev/variables/%2E%2E";
    let found = Request::new(format!("GET {path}")).send(&it.socket()).expect("an answer").expect(&[200]);
    assert_eq!((&found["key"], &found["value"]), (&json!(".."), &json!("dots")), "{found}");
    let deleted = Request::new(format!("DELETE {path}")).send(&it.socket()).expect("an answer");
    assert_eq!(deleted.status, 204, "{deleted:?}");
    let large = it.write("large.json", "{\n\"a\": 123456789012345678901\n}");
    it.dev("variables import", &[large.to_str().expect("text")]).refused(&["large.json:2", "write it as text"]);

    let pools = ["a/b #1?", "50%", "\u{fc} "];
    for pool in pools {
        it.dev("pools set", &[pool, "2", "odd\n\u{e4}"]).succeeded();
    }
    let file = it.root().join("odd-pools.json");
    let file = file.to_str().expect("text");
    it.dev("pools export", &[file]).succeeded();
    let listed = it.dev("pools list", &["--json"]).succeeded().json();
    for pool in pools {
        it.dev("pools delete", &[pool]).succeeded();
        it.dev("pools get", &[pool]).refused(&["no pool"]);
    }
    it.dev("pools import", &[file]).succeeded();
    assert_eq!(it.dev("pools list", &["--json"]).succeeded().json(), listed);
    for pool in pools {
        it.dev("pools delete", &[pool]).succeeded();
    }
}

/// At an upload, from a watched folder, and in the scheduler alike.
fn question_is_answered(it: &Installation) {
    assert!(it.dev("tasks questions", &[]).succeeded().stdout.contains("no open questions"));
    it.upload("asks.py");
    it.dev("dags trigger", &["--dag-id", "asks", "--run-id", "q"]).succeeded();
    let question = eventually("the question", || {
        let list = it.dev("tasks questions", &["--dag-id", "asks", "--json"]).succeeded().json();
        (list["total_entries"] == 1).then(|| list["hitl_details"][0].clone())
    });
    assert_eq!((&question["options"], &question["answer_by"]), (&json!(["some", "all"]), &Value::Null), "{question}");
    assert_eq!(question["params"]["amount"]["value"], 1, "{question}");
    let shown = it.dev("tasks questions", &[]).succeeded();
    assert!(shown.stdout.contains("How much?") && shown.stdout.contains("some, all  amount"), "{shown:#?}");
    let answer = |more: &[&str]| {
        it.dev("tasks answer", &[&["--dag-id", "asks", "--run-id", "q", "--task-id", "asks"], more].concat())
    };
    answer(&["--option", "none"]).refused(&["unknown options", "'some', 'all'"]);
    answer(&["--option", "all", "--params", "5"]).refused(&["must be a JSON object"]);
    answer(&["--option", "all", "--params", "{\"amount\": \"x\"}"]).refused(&["'amount'", "is not of type 'integer'"]);
    answer(&["--option", "-x", "--map-index", "-1"]).refused(&["unknown options: '-x'"]);
    answer(&["--option", "all", "--params", "{\"amount\": 5}"]).succeeded();
    reached(it, "asks", "q", "success");
    answer(&["--option", "some"]).refused(&["was answered by", "tasks questions"]);
    let path = "/v1/environments/dev/dags/asks/runs/q/tasks/other/hitl-details";
    let request = Request::new(format!("PATCH {path}")).json(&json!({"chosen_options": ["all"]}));
    let problem = request.send(&it.socket()).expect("an answer").expect(&[404]);
    assert!(text(&problem["detail"]).contains("no task 'other'"), "{problem}");
}

/// The upload of the second one says so, and the list which one counts.
fn duplicate_dag_ids_are_reported(it: &Installation) {
    let source = std::fs::read_to_string(dag_file("greeting.py")).expect("a DAG file");
    let put = |command: &str, name: &str| {
        let file = it.write(name, &source);
        it.dev(command, &["--file", file.to_str().expect("text")]).succeeded()
    };
    assert_eq!(put("dags create", "one.py").stderr, "");
    it.dev("tick", &[]).succeeded();
    let second = put("dags create", "two.py");
    let words = "warning: two.py and one.py both define DAG greeting: the one in one.py counts";
    assert!(second.stderr.contains(words), "{second:#?}");
    it.dev("tick", &[]).succeeded();
    let listed = it.dev("dags list", &[]).succeeded().stdout;
    let row = |file: &str| listed.lines().find(|line| line.contains(file)).unwrap_or_default().to_owned();
    assert!(row("two.py ").contains("ignored: one.py defines it"), "{listed}");
    let first = put("dags update", "one.py");
    assert!(
        first.stderr.contains("one.py and two.py both define DAG greeting: the one in one.py counts"),
        "{first:#?}"
    );
    it.dev("dags delete", &["--file", "one.py"]).succeeded();
    let files = it.dev("dags list", &["--json"]).succeeded().json();
    let two = files["files"].as_array().expect("files").iter().find(|file| file["filename"] == "two.py");
    let two = two.expect("the second file");
    assert_eq!((&two["dags"][0]["dag_id"], &two["shadowed_dags"]), (&json!("greeting"), &Value::Null), "{two}");
}

fn dag_files_see_the_environment(it: &Installation) {
    let source = "import os\nfrom airflow.sdk import DAG, Connection, Variable, task\n\
                  with DAG('reader', schedule=None, tags=[Connection.get('warehouse').host]):\n    \
                      for name in Variable.get('names', deserialize_json=True):\n        \
                          task(task_id=name)(lambda: 1)()\n    \
                      task(task_id='in-' + os.environ['AIRFLOW_VAR_REGION'][:2])(lambda: 1)()\n";
    let file = it.write("reader.py", source);
    let file = file.to_str().expect("text");
    it.dev("dags create", &["--file", file]).refused(&["reader.py:3", "warehouse"]);
    it.dev(
        "connections add",
        &["warehouse", "--conn-type", "http", "--conn-host", "one", "--conn-password", "pw-40c1"],
    )
    .succeeded();
    it.dev("dags create", &["--file", file]).refused(&["reader.py:4", "names not found"]);
    it.dev("variables set", &["names", "[\"a\"]"]).succeeded();
    let created = it.dev("dags create", &["--file", file, "--json"]).succeeded().json();
    assert_eq!(created["dags"][0]["task_count"], 2, "{created}");
    it.dev("variables set", &["names", "[\"a\", \"b\"]"]).succeeded();
    let (_, run) = it.run_dag("reader", &[]);
    assert_eq!(states(&run).into_iter().map(|(task, ..)| task).collect::<Vec<_>>(), ["a", "b", "in-eu"]);

    let folder = it.root().join("readers");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("watched.py"), source.replace("'reader'", "'watched'")).expect("a file");
    let folder = folder.to_str().expect("text");
    let watched = it.dev("watch add", &[folder, "--wait", "--json"]).succeeded().json();
    assert_eq!((&watched["state"], &watched["total_in_sync"]), (&json!("in_sync"), &json!(1)), "{watched}");
    it.dev("watch remove", &[folder]).succeeded();
    it.dev("variables delete", &["names"]).succeeded();
    it.dev("connections delete", &["warehouse"]).succeeded();
    it.has_in_no_file("pw-40c1");
}
