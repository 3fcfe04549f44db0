//! Whether a daemon runs is known by its lock, also while it stops, does not answer, or has its socket elsewhere.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use integration_tests::{Done, Installation, daemon::Daemon, eventually, text};
use rustix::process::Signal;
use serde_json::Value;

use crate::lifecycle::{slow_creation, stops};

fn status(it: &Installation) -> Value {
    it.cli(&["daemon", "status", "--json"]).json()
}

/// State and process id.
fn state_and_pid(status: &Value) -> (&str, Option<i64>) {
    (text(&status["state"]), status["pid"].as_i64())
}

fn pid(daemon: &Daemon) -> Option<i64> {
    Some(i64::from(daemon.0.id()))
}

/// What `doctor` says of the daemon, which is wrong.
#[track_caller]
fn diagnosis(it: &Installation) -> String {
    let done = it.cli(&["doctor", "--json"]);
    assert_eq!(done.code, 1, "{done:#?}");
    let report = done.json();
    let check = report["checks"].as_array().and_then(|checks| checks.iter().find(|check| check["name"] == "daemon"));
    let check = check.unwrap_or_else(|| panic!("nothing of the daemon in {report:#}"));
    assert_eq!(check["verdict"], "failure", "{check}");
    format!("{} {}", text(&check["detail"]), text(&check["fix"]))
}

#[track_caller]
fn ended(child: std::process::Child) -> Done {
    child.wait_with_output().expect("the CLI ends").into()
}

#[test]
fn unresponsive_daemon_is_reported_and_stopped() {
    let it = Installation::new();
    let mut daemon = Daemon::start(&it, &[]);
    daemon.serves(&it);
    assert_eq!(state_and_pid(&status(&it)), ("serves", pid(&daemon)));
    daemon.suspend();

    let done = it.cli(&["daemon", "status", "--json"]);
    let silent = done.json();
    assert_eq!((done.code, state_and_pid(&silent)), (1, ("silent", pid(&daemon))), "{silent:#}");
    assert!(text(&silent["hint"]).contains("daemon restart"), "{silent:#}");
    let said = diagnosis(&it);
    for part in [&format!("pid {}", daemon.0.id()), "not responding", "kill -CONT"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    // No command waits for its answer without end.
    let asked = Instant::now();
    for command in [&["env", "list"][..], &["dags", "trigger", "--env", "dev", "--dag-id", "any"], &["watch", "list"]] {
        let done = it.cli(command);
        assert!(done.code == 3 && done.stderr.contains("not responding"), "{done:#?}");
        assert!(done.stderr.contains("kill -CONT"), "{done:#?}");
    }
    assert!(asked.elapsed() < Duration::from_secs(120), "{:?}", asked.elapsed());
    let started = it.cli(&["daemon", "start"]);
    assert!(started.code == 3 && started.stderr.contains("not responding"), "{started:#?}");

    it.cli(&["daemon", "stop"]).succeeded();
    assert!(daemon.ended().success(), "{}", it.log());
    assert_eq!(state_and_pid(&status(&it)), ("absent", None));
}

/// A daemon that waits for a step of a creation and has closed its socket; and what lets the step go on.
fn stopping(it: &Installation) -> (Daemon, PathBuf) {
    let (daemon, mut creation) = slow_creation(it);
    daemon.signal(Signal::TERM);
    stops(it);
    eventually("the end of the API", || UnixStream::connect(it.socket()).is_err().then_some(()));
    creation.wait().expect("the end of the CLI");
    (daemon, it.root().join("go"))
}

#[test]
fn stop_waits_for_a_stopping_daemon() {
    let it = Installation::new();
    let (mut daemon, go) = stopping(&it);
    let shown = status(&it);
    assert_eq!(state_and_pid(&shown), ("stops", pid(&daemon)), "{shown:#}");
    assert!(text(&shown["hint"]).contains("daemon stop"), "{shown:#}");
    let said = diagnosis(&it);
    assert!(said.contains("is stopping") && said.contains(&daemon.0.id().to_string()), "{said}");

    let stop = it.spawn(&["daemon", "stop"]);
    fs::write(go, "").expect("a file");
    ended(stop).succeeded();
    assert_eq!(state_and_pid(&status(&it)), ("absent", None), "it was not waited for");
    // Told a second time, it would have left off its work.
    assert!(daemon.ended().success(), "{}", it.log());
}

#[test]
fn start_waits_for_a_stopping_daemon() {
    let it = Installation::new();
    let (mut daemon, go) = stopping(&it);
    let start = it.spawn(&["daemon", "start", "--json"]);
    fs::write(go, "").expect("a file");
    let next = ended(start).succeeded().json();
    assert_eq!(text(&next["state"]), "serves", "{next:#}");
    assert!(daemon.ended().success() && next["pid"].as_i64() != pid(&daemon), "{next:#}");
}

/// A program as this user has it in a session, or without one, under cron for example.
fn program(it: &Installation, name: &str, session: Option<&Path>) -> Command {
    let mut command = Command::new(it.program(name));
    command.env_clear().env("HOME", it.root()).env("PATH", std::env::var_os("PATH").expect("a PATH"));
    command.envs(session.map(|folder| ("XDG_RUNTIME_DIR", folder))).stdin(Stdio::null());
    command
}

#[test]
fn second_daemon_with_another_socket_folder_is_refused() {
    let it = Installation::new();
    let session = it.root().join("session");
    fs::create_dir(&session).expect("a folder");
    let socket = session.join("airflow-serverless/airflowd.sock");
    let mut first = program(&it, "airflowd", Some(&session));
    let mut first = Daemon(first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
    eventually("a daemon that serves", || UnixStream::connect(&socket).ok());

    let second = program(&it, "airflowd", None).output().expect("a second one");
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{said}");
    for part in ["another airflowd runs", &format!("pid {}", first.0.id()), socket.to_str().expect("text")] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }

    // Commands find it where it is.
    let cli = |arguments: &[&str]| {
        let output = program(&it, "airflow-serverless", None).args(arguments).output().expect("the CLI runs");
        Done::from(output).succeeded()
    };
    let shown = cli(&["daemon", "status", "--json"]).json();
    assert_eq!(
        (state_and_pid(&shown), text(&shown["socket"])),
        (("serves", pid(&first)), socket.to_str().expect("text"))
    );
    let listed = cli(&["env", "list"]);
    assert!(!listed.stderr.contains("starting"), "{listed:#?}");
    cli(&["daemon", "stop"]);
    assert!(first.ended().success());
    // The next one belongs to whoever started it.
    let shown = cli(&["daemon", "start", "--json"]).json();
    assert_eq!(text(&shown["state"]), "serves", "{shown:#}");
    assert!(!text(&shown["socket"]).starts_with(session.to_str().expect("text")), "{shown:#}");
    cli(&["daemon", "stop"]);
}
