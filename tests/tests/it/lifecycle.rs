//! The life of the daemon: how it starts, tells the service manager, changes its settings, and stops.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use integration_tests::{Installation, daemon::Daemon, eventually, text, workspace};
use rustix::process::Signal;
use serde_json::Value;

/// The next message to the service manager in which `wanted` is a line; what comes before is passed over.
#[track_caller]
fn next_message(manager: &UnixDatagram, wanted: &str) -> String {
    let mut buffer = [0; 4096];
    let mut passed = Vec::new();
    loop {
        let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted} ({error}) in {passed:#?}"));
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if message.lines().any(|line| line == wanted) {
            return message;
        }
        passed.push(message);
    }
}

fn manager(address: &SocketAddr) -> UnixDatagram {
    let manager = UnixDatagram::bind_addr(address).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    manager
}

#[test]
fn service_manager_is_notified_of_state_changes() {
    let it = Installation::new();
    let abstract_name = format!("airflowd-test-{}", std::process::id());
    let path = it.root().join("notify");
    let addresses = [
        (path.to_str().expect("text").to_owned(), SocketAddr::from_pathname(&path)),
        (format!("@{abstract_name}"), SocketAddr::from_abstract_name(&abstract_name)),
    ];
    for (name, address) in addresses {
        let manager = manager(&address.expect("an address"));
        let mut daemon = Daemon::start(&it, &[("NOTIFY_SOCKET", name.as_str()), ("WATCHDOG_USEC", "400000")]);
        next_message(&manager, "READY=1");
        // Ready is who answers.
        assert_eq!(it.pid(), Some(daemon.pid()), "another process answers");
        next_message(&manager, "WATCHDOG=1");
        next_message(&manager, "WATCHDOG=1");
        daemon.signal(Signal::HUP);
        let reloading = next_message(&manager, "RELOADING=1");
        let since_boot = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(since_boot.is_some_and(|text| text.parse::<u64>().is_ok_and(|usec| usec > 0)), "{reloading}");
        assert!(next_message(&manager, "READY=1").contains("STATUS=serves"));
        daemon.signal(Signal::TERM);
        next_message(&manager, "STOPPING=1");
        assert!(daemon.ended().success(), "{}", it.log());
    }
}

#[test]
fn unhealthy_daemon_sends_no_watchdog_notification() {
    let it = Installation::new();
    let path = it.root().join("notify");
    let manager = manager(&SocketAddr::from_pathname(&path).expect("an address"));
    let variables = [("NOTIFY_SOCKET", path.to_str().expect("text")), ("WATCHDOG_USEC", "200000")];
    let daemon = Daemon::start(&it, &variables);
    next_message(&manager, "WATCHDOG=1");
    // Whoever else holds the registry's lock keeps it from being read.
    let registry = it.home().join("data/registry.db");
    let script = "import sqlite3, sys\n\
                  c = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                  c.execute('DROP TABLE operation'); c.execute('DROP TABLE environment')";
    let broken = Command::new("python3").args(["-c", script]).arg(registry).status();
    assert!(broken.is_ok_and(|status| status.success()), "the registry was not broken");
    eventually("a daemon that knows that it is not well", || it.log().contains("not well").then_some(()));
    manager.set_nonblocking(true).expect("no waiting");
    while manager.recv(&mut [0; 4096]).is_ok() {}
    let complaints = || it.log().matches("not well").count();
    let before = complaints();
    eventually("two more looks", || (complaints() >= before + 2).then_some(()));
    let said = manager.recv(&mut [0; 4096]);
    assert!(said.is_err(), "it gave a sign of life");
    drop(daemon);
}

#[test]
fn sighup_reloads_settings_and_reopens_the_log() {
    let it = Installation::new();
    it.set_up_daemon("log:\n  format: json\n");
    let mut daemon = Daemon::start(&it, &[]);
    daemon.serves(&it);
    let first = eventually("the first line of the log", || it.log().lines().next().map(str::to_owned));
    let first: Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!((text(&first["level"]), text(&first["target"])), ("INFO", "airflowd::lifecycle"), "{first}");
    let said = |words: &str| {
        eventually(words, || it.log().contains(words).then_some(()));
    };

    it.set_up_daemon("log:\n  format: json\n  filter: debug\n");
    daemon.signal(Signal::HUP);
    said("the settings were read again");
    it.cli(&["daemon", "status"]).succeeded();
    said("answered");

    it.set_up_daemon("log:\n  filter: [\n");
    daemon.signal(Signal::HUP);
    said("all stay as they were");
    it.set_up_daemon("log:\n  format: json\n  filter: airflowd=loud\n");
    daemon.signal(Signal::HUP);
    said("airflowd=loud");
    it.set_up_daemon("log:\n  format: text\nlocal_modal:\n  ignore_gpu: true\n");
    daemon.signal(Signal::HUP);
    said("local_modal, log.format");

    // Who moves the log away says so, and has the old one for himself.
    let moved = it.root().join("moved.log");
    fs::rename(it.home().join("state/airflowd.log"), &moved).expect("moved");
    daemon.signal(Signal::HUP);
    said("the settings were read again");
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().success());
    assert!(!fs::read_to_string(moved).expect("the old log").contains("airflowd stops"));
    said("airflowd stops");
}

#[test]
fn full_log_is_rotated_and_followed() {
    let it = Installation::new();
    let log = it.home().join("state/airflowd.log");
    fs::create_dir_all(log.parent().expect("a folder")).expect("a folder");
    let full = fs::File::create(&log).expect("a file");
    full.set_len(10 << 20).expect("a full log");
    it.cli(&["daemon", "start"]).succeeded();
    assert!(it.log().contains("airflowd serves"));
    assert!(fs::metadata(&log).expect("the log").len() < 1 << 20);
    assert_eq!(fs::metadata(&log).expect("the log").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(log.with_extension("log.1")).expect("the one before").len(), 10 << 20);

    let shown = it.cli(&["daemon", "logs", "-n", "1", "--json"]).succeeded().json();
    assert_eq!(shown["lines"].as_array().map(Vec::len), Some(1), "{shown}");
    let mut following = it.spawn(&["daemon", "logs", "--follow"]);
    let mut lines = BufReader::new(following.stdout.take().expect("its output")).lines();
    let first = lines.next().expect("a line").expect("text");
    assert!(first.contains("airflowd serves"), "{first}");
    it.cli(&["daemon", "stop"]).succeeded();
    let next = lines.next().expect("a line").expect("text");
    assert!(next.contains("airflowd stops"), "{next}");
    following.kill().expect("killed");
    following.wait().expect("its end");
}

#[test]
fn second_daemon_on_one_home_is_refused() {
    let it = Installation::new();
    let mut first = Daemon::start(&it, &[]);
    first.serves(&it);
    let second = it.command("airflowd").output().expect("a second one");
    assert_eq!(second.status.code(), Some(75));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another airflowd runs"), "{second:?}");
    assert_eq!(it.pid(), Some(first.pid()), "the first one is gone");
}

/// An interpreter that says nothing before it may: the step that looks for one takes as long.
fn slow_python(it: &Installation) -> (std::path::PathBuf, std::path::PathBuf) {
    let (asked, go) = (it.root().join("asked"), it.root().join("go"));
    let (asked_at, go_at) = (asked.display(), go.display());
    let script = format!("#!/bin/sh\ntouch {asked_at}\nwhile [ ! -e {go_at} ]; do sleep 0.1; done\nexit 1\n");
    let python = it.write("python", &script);
    fs::set_permissions(python, Permissions::from_mode(0o755)).expect("a program");
    (asked, go)
}

/// Starts a daemon, and a creation that has come to its step with the slow interpreter.
pub fn slow_creation(it: &Installation) -> (Daemon, Child) {
    let (asked, _) = slow_python(it);
    let (python, runtimes) = (it.root().join("python"), it.root().join("runtimes"));
    let mut daemon = Daemon::start(
        it,
        &[
            ("AIRFLOW_SERVERLESS_PYTHON", python.to_str().expect("text")),
            ("AIRFLOW_SERVERLESS_RUNTIMES", runtimes.to_str().expect("text")),
        ],
    );
    daemon.serves(it);
    let config = it.write("config.yaml", &integration_tests::config(3600));
    let creation = it.spawn(&["create", "--env", "dev", "--config", config.to_str().expect("text")]);
    eventually("the slow step", || asked.exists().then_some(()));
    (daemon, creation)
}

pub fn stops(it: &Installation) {
    eventually("a daemon that stops", || it.log().contains("airflowd stops").then_some(()));
}

#[test]
fn sigterm_waits_for_the_running_step() {
    let it = Installation::new();
    let (mut daemon, mut creation) = slow_creation(&it);
    daemon.signal(Signal::TERM);
    stops(&it);
    eventually("the end of the API", || UnixStream::connect(it.socket()).is_err().then_some(()));
    assert!(daemon.0.try_wait().expect("its state").is_none(), "it did not wait for the step");
    fs::write(it.root().join("go"), "").expect("a file");
    assert!(daemon.ended().success(), "{}", it.log());
    creation.wait().expect("the end of the CLI");
    // What came of the step is recorded, and the next start goes on.
    let log = it.log();
    assert!(log.contains("the environment is not ready") && !log.contains("abandoned"), "{log}");
    let shown = it.dev("env show", &["--json"]).json();
    assert_eq!(shown["generation"], 1);
    eventually("the environment", || (it.dev("env show", &["--json"]).json()["state"] == "ready").then_some(()));
}

#[test]
fn second_sigint_exits_immediately() {
    let it = Installation::new();
    let (mut daemon, mut creation) = slow_creation(&it);
    daemon.signal(Signal::INT);
    stops(&it);
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().code(), Some(130), "{}", it.log());
    creation.wait().expect("the end of the CLI");
    fs::write(it.root().join("go"), "").expect("a file");
    // Nothing is lost: the next daemon repeats it.
    eventually("the environment", || (it.dev("env show", &["--json"]).json()["state"] == "ready").then_some(()));
}

#[test]
fn running_requests_are_answered_before_the_stop() {
    let it = Installation::with_dev(3600);
    // The validator is warm; what takes long is the file.
    it.upload("greeting.py");
    let (asked, go) = (it.root().join("asked"), it.root().join("go"));
    let slow = format!(
        "import pathlib, time\n\
         pathlib.Path({asked:?}).touch()\n\
         while not pathlib.Path({go:?}).exists():\n    time.sleep(0.05)\n\
         from airflow.sdk import DAG\n\
         dag = DAG('slow')\n"
    );
    let file = it.write("slow.py", &slow);
    let upload = it.spawn(&["dags", "create", "--env", "dev", "--file", file.to_str().expect("text")]);
    eventually("a file that is checked", || asked.exists().then_some(()));
    let stop = it.spawn(&["daemon", "stop"]);
    stops(&it);
    fs::write(go, "").expect("a file");
    for child in [upload, stop] {
        let done = integration_tests::Done::from(child.wait_with_output().expect("the CLI ends"));
        assert_eq!(done.code, 0, "{done:#?}\n{}", it.log());
    }
    let files = it.dev("dags list", &["--json"]).succeeded().json();
    assert_eq!(files["files"].as_array().map(Vec::len), Some(2), "{files}");
}

/// Databases as they were left by the first daemons.
#[test]
fn old_home_is_migrated() {
    let it = Installation::new();
    let data = it.home().join("data");
    fs::create_dir_all(data.join("modal")).expect("folders");
    let frozen = workspace().join("tests/data");
    fs::copy(frozen.join("registry-v1.db"), data.join("registry.db")).expect("the registry");
    fs::copy(frozen.join("local-modal-v1.db"), data.join("modal/state.db")).expect("Local Modal's database");
    // The functions are of another version, so that all is deployed anew.
    eventually("the environment", || {
        let environment = it.dev("env show", &["--json"]).succeeded().json();
        (environment["state"] == "ready" && environment["generation"] == 2).then_some(())
    });
    // The registry is kept as it was; a copy of what had secrets in the clear is not.
    let backups = |folder: &Path| {
        let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".backup")).count()
    };
    assert_eq!([backups(&data), backups(&data.join("modal"))], [1, 0]);
    it.upload("greeting.py");
}

#[test]
fn newer_home_is_refused() {
    let it = Installation::new();
    it.cli(&["daemon", "start"]).succeeded();
    it.cli(&["daemon", "stop"]).succeeded();
    for database in ["registry.db", "modal/state.db"] {
        let path = it.home().join("data").join(database);
        let script = "import sqlite3, sys\n\
                      c = sqlite3.connect(sys.argv[1])\n\
                      c.execute('''INSERT INTO _sqlx_migrations VALUES (999, 'newer', '2030-01-01', 1, x'00', 0)''')\n\
                      c.commit()";
        let newer = Command::new("python3").args(["-c", script]).arg(&path).status();
        assert!(newer.is_ok_and(|status| status.success()));
        let before = fs::read(&path).expect("the database");
        let started = it.cli(&["daemon", "start"]);
        assert_eq!(started.code, 3, "{started:#?}");
        for part in ["schema 999", "nothing was changed", "Install the newer version"] {
            assert!(started.stderr.contains(part), "no {part:?} in {started:#?}");
        }
        assert_eq!(fs::read(&path).expect("the database"), before, "it was changed");
        let daemon = it.command("airflowd").output().expect("a daemon");
        // A service manager need not try again.
        assert_eq!(daemon.status.code(), Some(78), "{daemon:?}");
        let older = script.replace(
            "INSERT INTO _sqlx_migrations VALUES (999, 'newer', '2030-01-01', 1, x'00', 0)",
            "DELETE FROM _sqlx_migrations WHERE version = 999",
        );
        assert!(Command::new("python3").args(["-c", &older]).arg(&path).status().is_ok_and(|status| status.success()));
    }
    it.cli(&["daemon", "start"]).succeeded();
}

/// Answers each request as a daemon of another version would.
fn serve_as_another_version(listener: UnixListener, answers: usize) {
    for stream in listener.incoming().take(answers) {
        let mut stream = stream.expect("a connection");
        let request = BufReader::new(stream.try_clone().expect("a copy")).lines();
        let head = request.map(|line| line.expect("a line")).take_while(|line| !line.is_empty());
        assert!(head.count() > 0, "no request");
        let body = r#"{"environments":[],"total_entries":0}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
             airflow-serverless-version: 9.9.9\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).expect("answered");
    }
}

#[test]
fn daemon_of_another_version_is_reported() {
    let it = Installation::new();
    it.cli(&["daemon", "start"]).succeeded();
    let own = it.cli(&["env", "list"]).succeeded();
    assert!(!own.stderr.contains("daemon restart"), "{own:#?}");
    it.cli(&["daemon", "stop"]).succeeded();

    assert!(!it.socket().exists(), "a socket of the last daemon");
    let listener = UnixListener::bind(it.socket()).expect("a socket");
    // A connection to look whether somebody listens, and three with a request, for each command.
    let other = std::thread::spawn(move || {
        for _ in 0..2 {
            drop(listener.accept().expect("a connection"));
            serve_as_another_version(listener.try_clone().expect("a copy"), 3);
        }
    });
    for format in [&["env", "list"][..], &["env", "list", "--json"]] {
        let listed = it.cli(format).succeeded();
        assert_eq!(listed.stderr.matches("9.9.9").count(), 1, "{listed:#?}");
        assert!(listed.stderr.contains("`airflow-serverless daemon restart`"), "{listed:#?}");
        assert!(!listed.stdout.contains("9.9.9"), "{listed:#?}");
    }
    other.join().expect("the other daemon");
    let restarted = it.cli(&["daemon", "restart"]).succeeded();
    assert!(
        restarted.stdout.contains("airflowd 0.1.0 is running") && !restarted.stderr.contains("note:"),
        "{restarted:#?}"
    );
}
