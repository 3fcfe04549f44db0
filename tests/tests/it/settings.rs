//! Each setting of `config.yaml` does what it says, and a changed one does so after `create --update`.

use integration_tests::{Installation, config, eventually, requests::Request, states};
use serde_json::json;

#[test]
fn config_options_take_effect() {
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
    options_of_airflow_are_checked(&it);
    options_of_airflow_take_effect(&it);
}

fn options_of_airflow_are_checked(it: &Installation) {
    let refused = |options: &str, parts: &[&str]| {
        let file = it.write("bad.yaml", &format!("{}airflow:\n{options}", config(3600)));
        it.dev("create", &["--config", file.to_str().expect("text"), "--update"]).refused(parts);
    };
    refused("  core:\n    parallelism: 3\n", &["bad.yaml", "airflow.core.parallelism:9", "set `executor.parallelism`"]);
    refused("  core:\n    max_map_lenght: 3\n", &["airflow.core.max_map_lenght:9", "did you mean `max_map_length`?"]);
    refused("  core:\n    max_map_length: many\n", &["airflow.core.max_map_length:9", "must be a whole number"]);
    refused("  default_task_retries: 2\n", &[":8", "write `core: {default_task_retries: …}`"]);
    let options = json!({"api": {"secret_key": "x"}, "core": {"max_map_length": true}});
    let mut wanted = it.dev("env show", &["--json"]).succeeded().json()["config"].clone();
    wanted["airflow"] = options;
    let patch = Request::new("PATCH /v1/environments/dev").json(&json!({"config": wanted}));
    let problem = patch.send(&it.socket()).expect("an answer").expect(&[422]);
    let locations: Vec<_> =
        problem["errors"].as_array().expect("errors").iter().map(|error| &error["location"]).collect();
    assert_eq!(locations, ["airflow.api.secret_key", "airflow.core.max_map_length"], "{problem}");
}

const VAULT: &str = "from airflow.secrets import BaseSecretsBackend\n\
                     class Vault(BaseSecretsBackend):\n    \
                         def __init__(self, owner):\n        \
                             super().__init__()\n        \
                             self.owner = owner\n    \
                         def get_variable(self, key, team_name=None):\n        \
                             return str(len(self.owner)) if key == 'vaulted' else None\n";

/// In the check before an upload, in the scheduler and in tasks. What is secret is kept in the Secret alone.
fn options_of_airflow_take_effect(it: &Installation) {
    const OWNER: &str = "own-7c21";
    let update = |options: &str| {
        let file = it.write("options.yaml", &format!("{}airflow:\n{options}", config(3600)));
        let mut command = it.command("airflow-serverless");
        command.env("OWNER", OWNER).args(["create", "--env", "dev", "--update", "--config"]).arg(file);
        let output = command.output().expect("the command");
        assert!(output.status.success(), "{output:?}");
    };
    let options = |kwargs: &str| {
        format!(
            "  core:\n    default_task_retries: 1\n    default_task_retry_delay: 0\n  secrets:\n    \
               backend: vault.Vault\n    backend_kwargs: {kwargs}\n"
        )
    };
    update(&options(r#"'{"owner": "${OWNER}"}'"#));
    let shown = it.dev("env show", &["--json"]).succeeded().json()["config"]["airflow"].clone();
    let secrets = json!({"backend": "vault.Vault", "backend_kwargs": null});
    assert_eq!((&shown["core"]["default_task_retries"], &shown["secrets"]), (&json!("1"), &secrets), "{shown}");
    let lines = it.dev("env show", &[]).succeeded().stdout;
    assert!(lines.contains("core.default_task_retries=1") && lines.contains("secrets.backend_kwargs"), "{lines}");

    std::fs::create_dir(it.root().join("plugins")).expect("a folder");
    let create = |name: &str, source: &str| {
        let file = it.write(name, source);
        it.dev("dags create", &["--file", file.to_str().expect("text"), "--json"]).succeeded().json()
    };
    create("plugins/vault.py", VAULT);
    let source = "from airflow.sdk import DAG, Variable, get_current_context, task\n\
                  with DAG('vaulted', schedule=None):\n    \
                      for number in range(int(Variable.get('vaulted'))):\n        \
                          @task(task_id=f'task{number}')\n        \
                          def one(number=number):\n            \
                              print('vaulted', Variable.get('vaulted'), Variable.get('missing', 'nowhere'))\n            \
                              if number == 0 and get_current_context()['ti'].try_number == 1:\n                \
                                  raise ValueError('once')\n        \
                          one()\n";
    assert_eq!(create("vaulted.py", source)["dags"][0]["task_count"], OWNER.len());
    let (done, run) = it.run_dag("vaulted", &[]);
    done.succeeded();
    let tasks = states(&run);
    assert_eq!((tasks.len(), tasks[0].2, tasks[1].2), (OWNER.len(), 2, 1), "{tasks:?}");
    assert!(it.task_log(&run, "task1", &[]).contains("vaulted 8 nowhere"));

    // An update without the value keeps it, and one without the option removes it.
    update(&options(""));
    it.run_dag("vaulted", &[]).0.succeeded();
    it.has_in_no_file(OWNER);
    update("  core: {default_task_retries: 0}\n");
    let errors = eventually("the parse without a secrets backend", || {
        let errors = it.dev("dags errors", &["--json"]).succeeded().json();
        (errors["total_entries"] == 1).then_some(errors)
    });
    assert!(errors.to_string().contains("vaulted not found"), "{errors}");
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
fn invalid_daemon_settings_are_refused() {
    let it = Installation::new();
    it.set_up_daemon("local_modal:\n  volume: strict\n");
    let refused = it.cli(&["daemon", "start"]);
    assert!(refused.code != 0 && refused.stderr.contains("airflowd.yaml"), "{refused:#?}");
    it.set_up_daemon("local_modal:\n  ignore_gpu: true\n");
    it.cli(&["daemon", "start"]).succeeded();
}
