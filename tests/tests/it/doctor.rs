//! `doctor` finds what is wrong, and says what to do about it.

use std::{fs, fs::Permissions, os::unix::fs::PermissionsExt, process::Command};

use integration_tests::{Done, Installation, eventually, python, text};
use serde_json::Value;

/// The check of this name.
#[track_caller]
fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

#[track_caller]
fn fails(done: &Done, name: &str, fix: &str) {
    assert_eq!(done.code, 1, "{done:#?}");
    let report = done.json();
    let check = check(&report, name);
    assert_eq!((text(&report["verdict"]), text(&check["verdict"])), ("failure", "failure"), "{report:#}");
    assert!(text(&check["fix"]).contains(fix), "{check}");
}

#[test]
fn doctor_reports_each_problem() {
    let it = Installation::new();
    let doctor = || it.cli(&["doctor", "--json"]);
    fails(&doctor(), "daemon", "daemon start");
    assert_eq!(it.pid(), None, "who looks starts nothing");

    it.create_dev(3600).succeeded();
    let well = doctor().succeeded().json();
    assert_ne!(well["verdict"], "failure", "{well:#}");
    let names = [
        "program",
        "folders",
        "daemon",
        "socket",
        "versions",
        "folder watches",
        "Python runtime",
        "Modal",
        "credentials",
        "clock",
        "crons",
        "environment dev",
        "Volume of dev",
    ];
    for name in names {
        assert_eq!(check(&well, name)["verdict"], "ok", "{name} in {well:#}");
    }
    assert!(text(&check(&well, "Volume of dev")["detail"]).contains("wrote and read a file"));
    let left: Vec<_> =
        fs::read_dir(it.volume()).expect("the Volume").map(|entry| entry.expect("a file").file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("diagnosis")), "{left:?}");
    let shown = it.cli(&["doctor"]).succeeded();
    assert!(shown.stdout.contains("✓ daemon: airflowd") && !shown.stdout.contains('\u{1b}'), "{shown:#?}");

    fs::set_permissions(it.socket(), Permissions::from_mode(0o666)).expect("another mode");
    fails(&doctor(), "socket", "chmod 600");
    fs::set_permissions(it.socket(), Permissions::from_mode(0o600)).expect("the mode as it was");

    let volume = it.volume();
    let away = it.root().join("volume");
    fs::rename(&volume, &away).expect("moved");
    fs::write(&volume, "").expect("a file where the folder was");
    fails(&doctor(), "Volume of dev", "daemon logs");
    fs::remove_file(&volume).expect("removed");
    fs::rename(&away, &volume).expect("moved back");
    doctor().succeeded();

    // A daemon without any Python to make a runtime from, and that polls.
    it.cli(&["daemon", "stop"]).succeeded();
    it.set_up_daemon("watch:\n  polling: true\n");
    it.start_without_python();
    fails(&doctor(), "Python runtime", "AIRFLOW_SERVERLESS_PYTHON");

    let folder = it.root().join("dags");
    fs::create_dir(&folder).expect("a folder");
    it.dev("watch add", &[folder.to_str().expect("text")]).succeeded();
    let polled = eventually("a folder that is polled", || {
        let report = doctor().json();
        let checks = report["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["name"] == "polled folders").cloned()
    });
    assert_eq!(polled["verdict"], "warning", "{polled}");
    assert!(text(&polled["detail"]).contains(folder.to_str().expect("text")), "{polled}");
}

#[test]
fn doctor_does_not_create_a_missing_volume() {
    let it = Installation::with_dev(3600);
    let mut delete = Command::new(python());
    delete.args(["-m", "modal", "volume", "delete", "airflow-dags-dev", "--yes"]);
    delete.env("MODAL_SERVER_URL", format!("unix://{}", it.home().join("run/modal.sock").display()));
    // On a socket any token does.
    delete.env("MODAL_TOKEN_ID", "ak-local").env("MODAL_TOKEN_SECRET", "as-local").env("HOME", it.root());
    let deleted = delete.output().expect("the SDK runs");
    assert!(deleted.status.success(), "{deleted:?}");

    for _ in 0..2 {
        let done = it.cli(&["doctor", "--json"]);
        fails(&done, "Volume of dev", "daemon logs");
        let report = done.json();
        assert!(text(&check(&report, "Volume of dev")["detail"]).contains("no such Volume"), "{report:#}");
    }
    let volumes = fs::read_dir(it.home().join("data/modal/volumes")).expect("volumes").count();
    assert_eq!(volumes, 0, "a Volume was made");
}

/// More than are looked at together, each of them once and in its place.
#[test]
fn doctor_checks_every_environment_once() {
    let it = Installation::new();
    // They come no further than to their Volume: nothing can be deployed without Python.
    it.start_without_python();
    let config = it.write("config.yaml", &integration_tests::config(3600));
    let names: Vec<_> = (0..10).map(|number| format!("e{number}")).collect();
    for name in &names {
        it.cli(&["create", "--env", name, "--config", config.to_str().expect("text")]);
    }
    let report = it.cli(&["doctor", "--json"]).json();
    let checks = report["checks"].as_array().expect("checks").iter();
    let found: Vec<_> = checks.filter_map(|check| text(&check["name"]).strip_prefix("environment ")).collect();
    assert_eq!(found, names, "{report:#}");
}
