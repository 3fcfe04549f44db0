//! Bad input: a clear error with a hint, an exit code of its own, and nothing half-done.

use std::{
    fs::File,
    process::{Command, Stdio},
};

use integration_tests::Installation;

#[test]
fn invalid_configurations_are_refused() {
    let it = Installation::new();
    let sqlite = "database:\n  type: sqlite\n";
    let cases: &[(&str, String, &[&str])] = &[
        ("empty", String::new(), &["empty"]),
        ("not YAML", "database: [".into(), &[":1"]),
        ("a list", "- database\n".into(), &[":1", "key: value"]),
        ("mysql", "database:\n  type: mysql\n".into(), &["type:2", "sqlite, postgres"]),
        ("unknown key", format!("{sqlite}schedular:\n  interval_seconds: 5\n"), &[":3", "did you mean `scheduler`?"]),
        ("unknown inner key", format!("{sqlite}executor:\n  paralelism: 5\n"), &[":4", "did you mean `parallelism`?"]),
        (
            "interval 0",
            format!("{sqlite}scheduler:\n  interval_seconds: 0\n"),
            &["scheduler.interval_seconds:4", "from 1"],
        ),
        (
            "interval text",
            format!("{sqlite}scheduler:\n  interval_seconds: often\n"),
            &["interval_seconds:4", "`often`"],
        ),
        ("negative", format!("{sqlite}executor:\n  task_timeout: -1\n"), &["task_timeout:4", "`-1`"]),
        ("postgres alone", "database:\n  type: postgres\n".into(), &["database.connection_string", "is required"]),
        (
            "postgres with an unset variable",
            "database:\n  type: postgres\n  connection_string: postgresql://${NO_SUCH_VARIABLE}@h/d\n".into(),
            &["connection_string:3", "${NO_SUCH_VARIABLE} is not set"],
        ),
        (
            "a path in place of a certificate",
            "database:\n  type: postgres\n  connection_string: postgresql://u:hunter2@h/d\n  root_certificate: ca.pem\n".into(),
            &["database.root_certificate:4", "PEM", "${ROOT_CERTIFICATE}"],
        ),
        (
            "a special character in the password",
            "database:\n  type: postgres\nconnection_string: postgresql://u:hunter2/@h/d\n".into(),
            &["database.connection_string:3", "percent-encoding"],
        ),
    ];
    for (name, content, parts) in cases {
        let config = it.write("config.yaml", content);
        let done = it.dev("create", &["--config", config.to_str().expect("text")]).refused(parts);
        assert!(done.stderr.contains("hint:"), "{name}: {done:#?}");
        assert!(!done.stderr.contains("hunter2"), "{name} shows the password");
    }
    let missing = it.root().join("missing.yaml");
    it.dev("create", &["--config", missing.to_str().expect("text")]).refused(&["missing.yaml", "No such file"]);
    it.dev("create", &["--config", it.root().to_str().expect("text")]).refused(&["not a file"]);
    for name in ["Dev", "a_b", "-a", "a/b", "", &"x".repeat(33)] {
        let config = it.write("config.yaml", sqlite);
        let done = it.cli(&["create", "--env", name, "--config", config.to_str().expect("text")]);
        assert_eq!(done.code, 2, "{name:?}: {done:#?}");
    }
    assert_eq!(it.cli(&["env", "list", "--json"]).json()["environments"], serde_json::json!([]));
    for command in ["env show", "dags list", "runs list"] {
        it.dev(command, &[]).refused(&["no environment dev", "airflow-serverless create --env dev"]);
    }
}

#[test]
fn invalid_dag_files_are_refused() {
    let it = Installation::with_dev(60);
    let cases: &[(&str, &str, &[&str])] = &[
        ("no_dags.py", "x = 1\n", &["no_dags.py", "defines no DAG"]),
        ("empty.py", "", &["empty.py", "defines no DAG"]),
        ("syntax.py", "x = 1\ndef f(:\n    pass\n", &["syntax.py:2", "SyntaxError"]),
        ("missing_module.py", "import os\nimport no_such_module\n", &["missing_module.py:2", "no_such_module"]),
        ("raises.py", "\n\nraise ValueError('at import')\n", &["raises.py:3", "at import"]),
        ("exits.py", "import sys\nsys.exit(3)\n", &["exits.py", "exit"]),
        ("vanishes.py", "import os\nos._exit(0)\n", &["vanishes.py", "exit"]),
        ("loops.py", "while True:\n    pass\n", &["loops.py", "longer than 30 s"]),
        ("recursion.py", "def f():\n    return f()\n\n\nf()\n", &["recursion.py", "RecursionError"]),
        ("text.txt", "hello", &["text.txt", ".py"]),
        ("bad name.py", "x = 1\n", &["bad name.py", "letters"]),
    ];
    for (name, content, parts) in cases {
        let file = it.write(name, content);
        it.dev("dags create", &["--file", file.to_str().expect("text")]).refused(parts);
    }
    let big = it.root().join("big.py");
    File::create(&big).and_then(|file| file.set_len(50 << 20)).expect("a large file");
    it.dev("dags create", &["--file", big.to_str().expect("text")]).refused(&["50 MiB", "hint:"]);
    it.dev("dags create", &["--file", it.root().to_str().expect("text")]).refused(&["it is a folder", "hint:"]);
    it.dev("dags create", &["--file", "no-such-file.py"]).refused(&["no-such-file.py", "No such file"]);
    it.dev("dags trigger", &["--dag-id", "x", "--conf", "not json"]).refused(&["--conf", "JSON object"]);
    it.dev("runs show", &["--dag-id", "x", "--run-id", "y"]).refused(&["no run y of DAG x"]);
    assert_eq!(it.dev("dags list", &["--json"]).json()["files"], serde_json::json!([]), "something was uploaded");

    it.upload("greeting.py");
    for run_id in ["", ".", "..", "a/b", "../../../x", "a b", "ü", &"x".repeat(249)] {
        let refused = it.dev("dags trigger", &["--dag-id", "greeting", "--run-id", run_id]).refused(&["run id"]);
        assert!(refused.stdout.is_empty(), "{run_id:?}: {refused:#?}");
    }
    let problem = it.dev("dags trigger", &["--dag-id", "nope", "--json"]).refused(&["no DAG 'nope'"]).json();
    assert_eq!(problem["type"], "urn:airflow-serverless:problem:dag-not-found");

    // The longest run id, and a task's log under it; tasks that there are not, and paths that are none.
    let (done, run) = it.run_dag("greeting", &["--run-id", &"x".repeat(248)]);
    done.succeeded();
    assert!(it.task_log(&run, "greet", &[]).contains("hello"));
    for task in ["nope", "../../../dags/greeting.py", "greet/../greet"] {
        let run_id = run["dag_run_id"].as_str().expect("text");
        it.dev("tasks logs", &["--dag-id", "greeting", "--run-id", run_id, "--task-id", task])
            .refused(&[task, "hint:"]);
    }

    // Names that are steps in a path would make it another request.
    for (id, reason) in [("", "is empty"), (".", "is not an id"), ("..", "is not an id")] {
        for command in [&["dags delete", "--dag-id", id][..], &["runs show", "--dag-id", "greeting", "--run-id", id]] {
            let done = it.dev(command[0], &command[1..]);
            assert!(done.code == 2 && done.stderr.contains(reason), "{done:#?}");
        }
    }

    // A file that spoils after its upload is told, and does not hold up the scheduler.
    std::fs::write(it.volume().join("dags/spoiled.py"), "raise RuntimeError('spoiled')  # a DAG\n")
        .expect("a written file");
    it.dev("dags delete", &["--dag-id", "greeting"]).succeeded();
    let listed = it.dev("dags list", &[]).succeeded();
    assert!(listed.stdout.contains("import error") && listed.stdout.contains("spoiled"), "{listed:#?}");
}

#[test]
fn pipes_and_devices_are_refused_as_files() {
    let it = Installation::new();
    let pipe = |name: &str| {
        let path = it.root().join(name);
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
        path.to_str().expect("text").to_owned()
    };
    let device = |name: &str| {
        let path = it.root().join(name);
        std::os::unix::fs::symlink("/dev/zero", &path).expect("a link");
        path.to_str().expect("text").to_owned()
    };
    it.dev("create", &["--config", &pipe("config.yaml")]).refused(&["config.yaml", "it is a pipe, not a file"]);
    it.dev("create", &["--config", &device("zero.yaml")]).refused(&["zero.yaml", "it is a device, not a file"]);
    let profiles = pipe("user/.modal.toml");
    it.cli(&["auth", "login"]).refused(&[".modal.toml", "it is a pipe, not a file"]);
    std::fs::remove_file(profiles).expect("removed");

    it.cli(&["daemon", "start"]).succeeded();
    for command in ["variables import", "connections import"] {
        it.dev(command, &[&pipe(&format!("{}.json", command.replace(' ', "_")))])
            .refused(&[".json", "it is a pipe, not a file"]);
        it.dev(command, &[&device(&format!("{}.yaml", command.replace(' ', "_")))])
            .refused(&[".yaml", "it is a device, not a file"]);
    }
    it.dev("dags create", &["--file", &pipe("pipe.py")]).refused(&["pipe.py", "it is a pipe, not a file"]);
    it.dev("dags create", &["--file", &device("zero.py")]).refused(&["zero.py", "it is a device, not a file"]);

    // The daemon's own files: its settings, and the token for a port.
    it.cli(&["daemon", "stop"]).succeeded();
    let settings = it.home().join("config/airflowd.yaml");
    std::fs::create_dir_all(settings.parent().expect("a folder")).expect("a folder");
    std::fs::rename(pipe("settings"), &settings).expect("moved");
    let done = it.cli(&["daemon", "start"]);
    assert!(done.code != 0 && done.stderr.contains("it is a named pipe, not a regular file"), "{done:#?}");
    std::fs::remove_file(&settings).expect("removed");
    std::fs::write(&settings, "listen: 127.0.0.1:0\n").expect("written");
    let token = it.home().join("data/token");
    let _ = std::fs::remove_file(&token);
    std::fs::rename(pipe("pipe"), &token).expect("moved");
    let done = it.cli(&["daemon", "start"]);
    assert!(done.code != 0 && done.stderr.contains("it is a named pipe, not a regular file"), "{done:#?}");
}

#[test]
fn misplaced_secrets_are_not_repeated() {
    let it = Installation::new();
    let url = "postgresql://u:hunter2@h/d";
    let cases = [
        format!("database:\n  type: {url}\n"),
        format!("database: {url}\n"),
        format!("{url}\n"),
        format!("database:\n  type: postgres\n  conection_string: {url}\n"),
        format!("database:\n  type: postgres\n  connection_string: \"{url}\n"),
        format!("database:\n  type: sqlite\n  connection_string: {url}\n"),
        format!("database:\n  type: sqlite\nexecutor:\n  parallelism: {url}\n"),
        format!(
            "{{database: {{type: postgres, connection_string: \"{url}\"}}, scheduler: {{interval_seconds: often}}}}\n"
        ),
        format!("{{database: {{type: postgres, connection_string: \"{url}\"}}, typo: 1}}\n"),
    ];
    for content in cases {
        let config = it.write("config.yaml", &content);
        for more in
            [&["--config", config.to_str().expect("text")][..], &["--config", config.to_str().expect("text"), "--json"]]
        {
            let done = it.dev("create", more).refused(&["is not a valid configuration"]);
            assert!(!done.stderr.contains("hunter2") && !done.stdout.contains("hunter2"), "{content}{done:#?}");
        }
    }
    assert!(!it.home().exists(), "the daemon was started for nothing");
}

#[test]
fn unwritable_output_is_a_failure() {
    let it = Installation::new();
    it.cli(&["daemon", "start"]).succeeded();
    let list = |stdout: Stdio| {
        let mut command = Command::new(it.program("airflow-serverless"));
        command.args(["env", "list"]).envs(it.variables()).stdout(stdout).stderr(Stdio::piped());
        command.output().expect("the CLI runs")
    };
    let full = File::options().write(true).open("/dev/full").expect("a full device");
    let output = list(full.into());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("standard output cannot be written"), "{output:?}");
    // Whoever has gone has seen enough.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    assert!(list(writer.into()).status.success());
}

#[test]
fn missing_daemon_program_is_reported() {
    let it = Installation::new();
    let mut command = it.command("airflow-serverless");
    command.env("AIRFLOW_SERVERLESS_DAEMON", "/no/such/airflowd").args(["env", "list", "--json"]);
    let output = command.output().expect("the CLI runs");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let problem: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(problem["type"], "urn:airflow-serverless:problem:internal");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("/no/such/airflowd")), "{problem}");
}

#[test]
fn invalid_command_lines_are_refused() {
    let it = Installation::new();
    let wrong = it.cli(&["dags", "list", "--json", "--everything"]);
    assert_eq!(wrong.code, 2, "{wrong:#?}");
    let detail = wrong.json()["detail"].to_string();
    assert!(detail.contains("--everything") && wrong.stderr.contains("--everything"), "{wrong:#?}");
    let plain = it.cli(&["dags", "list", "--everything"]);
    assert_eq!((plain.code, plain.stdout.as_str()), (2, ""));
    let help = it.cli(&["dags", "--json", "--help"]);
    assert!(help.code == 0 && help.stdout.contains("Usage:"), "{help:#?}");

    // A variable that is set to nothing is not set.
    let unset = it.command("airflow-serverless").args(["dags", "list"]).env("AIRFLOW_SERVERLESS_ENV", "").output();
    let unset = String::from_utf8_lossy(&unset.expect("the CLI runs").stderr).into_owned();
    assert!(unset.contains("--env <NAME>") && unset.contains("required"), "{unset}");
}
