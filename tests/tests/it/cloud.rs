//! Environments in Modal's cloud, which another Local Modal plays: over TCP, with a token of its own.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use integration_tests::{Installation, binaries, python, text};
use rustix::process::{Pid, Signal, kill_process};

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
    it.cli(&["auth", "login"]).refused(&["no token of Modal was found", "MODAL_TOKEN_ID"]);
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
        it.write(".modal.toml", &text);
    };
    profile("as-hunter2");
    it.cli(&["auth", "login"]).refused(&["refuses the credentials"]);
    profile(&cloud.secret);
    let status = it.cli(&["auth", "login", "--json"]).succeeded();
    assert!(!status.stdout.contains(&cloud.secret) && !status.stderr.contains(&cloud.secret), "{status:?}");
    assert_eq!(status.json()["token_id"], "ak-local");

    let config = it.write("cloud.yaml", &format!("target: modal\n{}", integration_tests::config(3600)));
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
    assert!(clock["verdict"] == "ok" && text(&clock["detail"]).ends_with("as at Modal"), "{clock}");

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
