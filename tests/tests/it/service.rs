//! The daemon as a service of the system, and what else the system has of it: completions and man pages.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use integration_tests::{Done, Installation, workspace};

/// What `systemd-analyze security` may say at most, in tenths. It says 96 of a unit without any hardening.
const EXPOSURE: &str = "35";

fn exists(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        eprintln!("NOT TESTED: there is no {program} on this machine");
    }
    found
}

#[track_caller]
fn successful_output(output: Output) -> String {
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{}: {text}", output.status);
    text
}

/// An installation with a systemd of its own that does what the units say.
struct System {
    it: Installation,
}

impl System {
    fn new() -> Self {
        let it = Installation::new();
        for folder in ["bin", "notes", "config"] {
            fs::create_dir(it.root().join(folder)).expect("a folder");
        }
        let fake = workspace().join("tests/data/systemctl.py");
        program(&it, "systemctl", &format!("exec python3 {} \"$@\"", fake.display()));
        program(&it, "journalctl", "echo journal \"$@\"");
        Self { it }
    }

    fn cli(&self, arguments: &[&str]) -> Done {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").expect("a PATH"));
        let mut command = self.it.command("airflow-serverless");
        command.env("PATH", path).env("FAKE_SYSTEMD", self.path("notes")).env("XDG_CONFIG_HOME", self.path("config"));
        command.args(arguments).output().expect("the CLI runs").into()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.it.root().join(name)
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.path("config/systemd/user").join(name)
    }

    /// The process that the units brought about.
    fn service_pid(&self) -> Option<u64> {
        fs::read_to_string(self.path("notes/airflowd.service")).ok()?.parse().ok()
    }

    fn status(&self) -> serde_json::Value {
        self.cli(&["daemon", "status", "--json"]).succeeded().json()
    }
}

fn program(it: &Installation, name: &str, script: &str) {
    let path = it.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("a program");
}

#[test]
fn service_is_installed_and_uninstalled() {
    let system = System::new();
    // One that was started by hand makes room.
    system.cli(&["daemon", "start"]).succeeded();
    let by_hand = system.status()["pid"].clone();
    let installed = system.cli(&["daemon", "install", "--json"]).succeeded().json();
    assert_eq!(installed["service"], "systemd", "{installed}");
    assert_eq!(installed["files"].as_array().map(Vec::len), Some(2), "{installed}");
    let status = system.status();
    assert_eq!(
        (status["service"].as_str(), status["pid"].as_u64()),
        (Some("systemd"), system.service_pid()),
        "{status}"
    );
    assert_ne!(status["pid"], by_hand);

    // Start, stop and restart do not get in its way.
    let stopped = system.cli(&["daemon", "stop", "--json"]).succeeded().json();
    assert_eq!((stopped["running"].as_bool(), system.service_pid()), (Some(false), None), "{stopped}");
    let listed = system.cli(&["env", "list"]).succeeded();
    assert!(listed.stderr.contains("starting airflowd"), "{listed:#?}");
    let restarted = system.cli(&["daemon", "restart", "--json"]).succeeded().json();
    assert_eq!(restarted["pid"].as_u64(), system.service_pid(), "{restarted}");
    let logs = system.cli(&["daemon", "logs", "-n", "7"]).succeeded().stdout;
    assert_eq!(logs, "journal --user --unit airflowd.service --no-pager --lines 7\n");

    // The daemon of another home is none of its business.
    let other = Installation::new();
    let mut command = other.command("airflow-serverless");
    command.env("XDG_CONFIG_HOME", system.path("config")).args(["daemon", "status", "--json"]);
    let status = Done::from(command.output().expect("the CLI runs")).succeeded().json();
    assert!(status["service"].is_null(), "{status}");

    let removed = system.cli(&["daemon", "uninstall"]).succeeded();
    assert!(removed.stdout.contains("airflowd.socket"), "{removed:#?}");
    assert!(!system.unit("airflowd.service").exists() && !system.unit("airflowd.socket").exists());
    let status = system.status();
    assert_eq!((status["running"].as_bool(), status["service"].as_str()), (Some(false), None), "{status}");
    system.cli(&["daemon", "uninstall"]).refused(&["is not a service", "daemon install"]);
}

#[test]
fn install_without_a_service_manager_is_refused() {
    let it = Installation::new();
    fs::create_dir(it.root().join("bin")).expect("a folder");
    program(&it, "systemctl", "echo 'Failed to connect to bus' >&2; exit 1");
    let path = format!("{}:{}", it.root().join("bin").display(), std::env::var("PATH").expect("a PATH"));
    let mut command = it.command("airflow-serverless");
    command.env("PATH", path).env("XDG_CONFIG_HOME", it.root().join("config")).args(["daemon", "install"]);
    Done::from(command.output().expect("the CLI runs")).refused(&["systemctl --user", "daemon start"]);
    assert!(!it.root().join("config").exists(), "something was written");
}

/// The units as they are installed, and as they are checked in.
#[test]
fn systemd_accepts_the_units() {
    if !exists("systemd-analyze") {
        return;
    }
    let system = System::new();
    system.cli(&["daemon", "install"]).succeeded();
    let checked_in = system.path("checked-in");
    fs::create_dir(&checked_in).expect("a folder");
    for name in ["airflowd.service", "airflowd.socket"] {
        let text = fs::read_to_string(workspace().join("systemd").join(name)).expect("a unit");
        let text = text.replace("ExecStart=%h/.local/bin/airflowd", "ExecStart=/bin/true");
        fs::write(checked_in.join(name), text).expect("a unit");
    }
    for folder in [system.path("config/systemd/user"), checked_in] {
        let units = ["airflowd.service", "airflowd.socket"].map(|name| folder.join(name));
        let output = analyze(&system, &["verify", "--man=no", "--recursive-errors=no"], &units);
        let complaints: Vec<_> = output.lines().filter(|line| line.contains("airflowd")).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
        let threshold = format!("--threshold={EXPOSURE}");
        let output = analyze(&system, &["security", "--offline=true", "--no-pager", &threshold], &units[..1]);
        assert!(output.contains("Overall exposure level"), "{output}");
    }
}

fn analyze(system: &System, arguments: &[&str], units: &[PathBuf]) -> String {
    let mut command = Command::new("systemd-analyze");
    command.arg("--user").args(arguments).args(units).env("XDG_RUNTIME_DIR", system.it.root());
    successful_output(command.output().expect("systemd-analyze runs"))
}

#[test]
fn shells_accept_the_completions() {
    let it = Installation::new();
    for (shell, options) in [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["--no-execute"])] {
        let script = it.cli(&["completions", shell]).succeeded().stdout;
        assert!(script.contains("airflow-serverless") && script.contains("backfills"), "{script}");
        if exists(shell) {
            let path = it.write(shell, &script);
            successful_output(Command::new(shell).args(options).arg(path).output().expect("the shell runs"));
        }
    }
    for shell in ["powershell", "elvish"] {
        assert!(it.cli(&["completions", shell]).succeeded().stdout.contains("backfills"));
    }
    // What bash offers after a word is what the command line takes.
    let path = it.write("complete.bash", &it.cli(&["completions", "bash"]).stdout);
    let ask = format!(
        "source {}; COMP_WORDS=(airflow-serverless daemon re); COMP_CWORD=2; \
         function=$(complete -p airflow-serverless | sed 's/.* -F \\([^ ]*\\) .*/\\1/'); \
         $function airflow-serverless re daemon; echo \"${{COMPREPLY[@]}}\"",
        path.display()
    );
    assert_eq!(
        successful_output(Command::new("bash").args(["-c", &ask]).output().expect("bash runs")).trim(),
        "restart"
    );
    let wrong = it.cli(&["completions", "cmd"]);
    assert_eq!(wrong.code, 2, "{wrong:#?}");
}

#[test]
fn each_command_has_a_man_page() {
    let it = Installation::new();
    let folder = it.root().join("man");
    let written = it.cli(&["man", "--dir", folder.to_str().expect("text"), "--json"]).succeeded().json();
    let pages: Vec<_> = fs::read_dir(&folder).expect("pages").map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(written["pages"].as_u64(), Some(pages.len() as u64));
    let page = |name: &str| folder.join(format!("airflow-serverless{name}.1"));
    for name in ["", "-create", "-dags-trigger", "-daemon-install", "-doctor"] {
        assert!(page(name).exists(), "no page for {name:?} in {pages:?}");
    }
    if exists("groff") {
        let faults = |path: &Path| {
            let mut command = Command::new("groff");
            command.args(["-man", "-ww", "-Tutf8"]).arg(path);
            let output = command.output().expect("groff runs");
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            (!output.status.success() || !errors.is_empty()).then(|| format!("{}: {errors}", path.display()))
        };
        let faults: Vec<_> = pages.iter().filter_map(|path| faults(path)).collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }
    if exists("man") {
        let shown = successful_output(
            Command::new("man").arg("-l").arg(page("-dags-trigger")).env("MANPAGER", "cat").output().expect("man runs"),
        );
        assert!(shown.contains("--logical-date"), "{shown}");
    }
}
