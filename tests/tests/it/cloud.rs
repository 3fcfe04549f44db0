//! Environments in Modal's cloud, which another Local Modal plays: over TCP, with a token of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use integration_tests::{Installation, binaries, python, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// A DAG file whose task ends well if the environment has its variable.
const NEEDS_PLACE: &str = r#"
import os
from airflow.sdk import DAG, task

with DAG("needs"):

    @task
    def place():
        assert os.environ["PLACE"] == "far"

    place()
"#;

/// Ends with the test.
struct Cloud {
    process: Child,
    url: String,
    secret: String,
}

impl Cloud {
    fn start(it: &Installation) -> Self {
        let data = it.root().join("cloud");
        let mut command = Command::new(binaries().join("modal-local"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
        command.arg("--python").arg(python()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("modal-local starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let url = lines.find_map(|line| line.ok()?.strip_prefix("MODAL_SERVER_URL=").map(str::to_owned));
        let environment = Command::new(binaries().join("modal-local")).args(["env", "--data-dir"]).arg(&data).output();
        let environment = String::from_utf8(environment.expect("modal-local runs").stdout).expect("text");
        let secret = environment.split_whitespace().find_map(|word| word.strip_prefix("MODAL_TOKEN_SECRET="));
        let secret = secret.expect("a secret").trim_end_matches(';').to_owned();
        Self { process, url: url.expect("a server"), secret }
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).expect("a process id")).expect("a process id");
        // It ends what it started, which a kill would not.
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.process.wait();
    }
}

#[test]
fn environments_run_in_the_cloud_with_credentials() {
    let it = Installation::new();
    it.cli(&["daemon", "start"]).succeeded();
    assert_eq!(it.cli(&["auth", "status", "--json"]).succeeded().json()["configured"], false);
    it.cli(&["auth", "login"]).refused(&["no Modal token found", "MODAL_TOKEN_ID"]);
    // Makes the runtime that the cloud needs, too.
    it.create_dev(3600).succeeded();
    assert_eq!(it.dev("env show", &["--json"]).json()["target"], "local");

    let cloud = Cloud::start(&it);
    let profile = |secret: &str| {
        let text = format!(
            "[other]\ntoken_id = \"ak-other\"\ntoken_secret = \"as-other\"\n\n[work]\nactive = true\n\
             token_id = \"ak-local\"\ntoken_secret = \"{secret}\"\nserver_url = \"{}\"\n",
            cloud.url
        );
        it.write("user/.modal.toml", &text);
    };
    profile("as-hunter2");
    it.cli(&["auth", "login"]).refused(&["refuses the credentials"]);
    profile(&cloud.secret);
    let status = it.cli(&["auth", "login", "--json"]).succeeded();
    assert!(!status.stdout.contains(&cloud.secret) && !status.stderr.contains(&cloud.secret), "{status:?}");
    assert_eq!(status.json()["token_id"], "ak-local");

    let config =
        it.write("cloud.yaml", &format!("target: modal\n{}env:\n  PLACE: far\n", integration_tests::config(3600)));
    let config = config.to_str().expect("text");
    it.cli(&["create", "--env", "far", "--config", config]).succeeded();
    assert_eq!(it.cli(&["env", "show", "--env", "far", "--json"]).json()["target"], "modal");
    it.cli(&[
        "create",
        "--env",
        "far",
        "--update",
        "--config",
        it.write("c.yaml", "target: local\ndatabase:\n  type: sqlite\n").to_str().expect("text"),
    ])
    .refused(&["target", "cannot be changed"]);
    let file = integration_tests::dag_file("greeting.py");
    it.cli(&["dags", "create", "--env", "far", "--file", file.to_str().expect("text")]).succeeded();
    let run =
        it.cli(&["dags", "trigger", "--env", "far", "--dag-id", "greeting", "--wait", "--json"]).succeeded().json();
    assert_eq!(text(&run["state"]), "success");
    assert!(it.root().join("cloud/volumes").read_dir().expect("volumes").next().is_some());

    let report = it.cli(&["doctor", "--json"]).json();
    let clock = report["checks"].as_array().and_then(|checks| checks.iter().find(|check| check["name"] == "clock"));
    let clock = clock.unwrap_or_else(|| panic!("no clock in {report:#}"));
    assert!(clock["verdict"] == "ok" && text(&clock["detail"]).ends_with("the same as Modal's"), "{clock}");

    lost_registry_is_reported_and_environments_adopted(&it);

    // Without credentials it goes on, but cannot be reached from here.
    it.cli(&["auth", "logout"]).succeeded();
    it.cli(&["dags", "list", "--env", "far"]).refused(&["no credentials", "auth login"]);
    it.dev("dags list", &[]).succeeded();
    it.cli(&["auth", "login"]).succeeded();
    it.cli(&["dags", "list", "--env", "far"]).succeeded();
    it.cli(&["env", "delete", "--env", "far", "--yes", "--purge"]).succeeded();

    let kept = it.files_with(&cloud.secret);
    assert_eq!(kept, [it.home().join("data/credentials.json")]);
}

/// With an environment on Local Modal and one in the cloud, whose tasks need a value of the Secret.
fn lost_registry_is_reported_and_environments_adopted(it: &Installation) {
    let environments = || it.cli(&["env", "list", "--json"]).succeeded().json()["total_entries"].clone();
    let adopt = |name| it.cli(&["env", "adopt", "--env", name]);
    assert!(adopt("dev").succeeded().stdout.contains("nothing was changed"));
    it.cli(&["daemon", "stop"]).succeeded();
    let data = it.home().join("data");
    let registry = data.join("registry.db");
    let whole = fs::read(&registry).expect("the registry");
    fs::write(&registry, "damaged").expect("a damaged registry");
    let refused = it.cli(&["daemon", "start"]);
    assert_ne!(refused.code, 0, "{refused:#?}");
    for words in ["registry.db", "is damaged", "move it away", "env adopt"] {
        assert!(refused.stderr.contains(words), "no {words:?} in {refused:#?}");
    }
    fs::write(&registry, whole).expect("the registry");
    for file in fs::read_dir(&data).expect("a folder").map(|file| file.expect("a file").path()) {
        if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("registry.db")) {
            fs::remove_file(file).expect("a file of the registry");
        }
    }

    it.cli(&["daemon", "start"]).succeeded();
    let listed = it.cli(&["env", "list"]).succeeded();
    for words in ["dev is deployed (local), but not", "far is deployed (modal), but not", "env adopt --env far"] {
        assert!(listed.stderr.contains(words), "no {words:?} in {listed:#?}");
    }
    let listed = it.cli(&["env", "list", "--json"]).succeeded().json();
    let unregistered = listed["unregistered"]["environments"].as_array().expect("those that are not registered");
    let found: Vec<_> = unregistered.iter().map(|one| (text(&one["name"]), text(&one["target"]))).collect();
    assert_eq!(found, [("dev", "local"), ("far", "modal")], "{listed}");
    it.dev("env show", &[]).refused(&["there is no environment dev", "env adopt --env dev"]);
    let report = it.cli(&["doctor", "--json"]).succeeded().json();
    let checks = report["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == "registry").expect("the check");
    assert!(check["verdict"] == "warning" && text(&check["detail"]).ends_with("not registered: dev"), "{check}");
    adopt("other").refused(&["is not deployed on Local Modal"]);

    adopt("far").succeeded();
    let description = it.volume().join("data/environment.json");
    let content = fs::read(&description).expect("the description");
    for (damage, words) in [("{}", "missing field"), ("", "EOF")] {
        fs::write(&description, damage).expect("a damaged description");
        adopt("dev").refused(&["was not adopted", "data/environment.json", words, "create --env dev"]);
    }
    assert_eq!(environments(), 1);
    fs::write(&description, content).expect("the description");
    adopt("dev").succeeded();
    assert_eq!(environments(), 2);
    it.dev("dags list", &[]).succeeded();
    let shown = it.cli(&["env", "show", "--env", "far", "--json"]).json();
    assert_eq!((&shown["target"], &shown["config"]["scheduler"]["interval_seconds"]), (&json!("modal"), &json!(3600)));
    let needs = it.write("needs.py", NEEDS_PLACE);
    it.cli(&["dags", "create", "--env", "far", "--file", needs.to_str().expect("text")]).succeeded();
    let run = it.cli(&["dags", "trigger", "--env", "far", "--dag-id", "needs", "--wait", "--json"]).succeeded().json();
    assert_eq!(text(&run["state"]), "success");
    it.cli(&["runs", "list", "--env", "far", "--dag-id", "greeting"]).succeeded();
}
