//! What stops a scheduler is seen where people look, and a damaged database is replaced by a backup.

use std::{
    fs,
    time::{Duration, Instant},
};

use integration_tests::{Installation, eventually, requests::Request, text};
use serde_json::{Value, json};

const HEALTHY: &str = "SchedulerHealthy";

/// The condition of the environment.
fn scheduler(it: &Installation) -> Value {
    let shown = it.dev("env show", &["--json"]).succeeded().json();
    let conditions = shown["conditions"].as_array().expect("conditions").clone();
    conditions.into_iter().find(|condition| condition["type"] == HEALTHY).expect("the condition of the scheduler")
}

/// What `doctor` says of something, if it is not well.
fn doctor(it: &Installation, name: &str) -> Option<String> {
    let report = it.cli(&["doctor", "--json"]).json();
    let checks = report["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"));
    (check["verdict"] != "ok").then(|| format!("{} {}", text(&check["detail"]), text(&check["fix"])))
}

fn metric(it: &Installation) -> String {
    let text = Request::new("GET /v1/metrics").send(&it.socket()).expect("figures").body;
    let line = text.lines().find(|line| line.starts_with("airflowd_scheduler_healthy{environment=\"dev\"}"));
    line.expect("the figure of the scheduler").to_owned()
}

/// Reasons of the events about the scheduler.
fn events(it: &Installation) -> Vec<String> {
    let told = it.cli(&["events", "--after", "0", "--no-follow", "--json"]).succeeded().stdout;
    let events = told.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    let is_of_scheduler = |event: &Value| event["type"] == "scheduler.state";
    events.filter(is_of_scheduler).map(|event| text(&event["data"]["reason"]).to_owned()).collect()
}

#[test]
fn damaged_database_is_reported_and_restored_from_a_backup() {
    let it = Installation::with_dev(60);
    it.upload("greeting.py");
    assert_eq!(it.run_dag("greeting", &["--run-id", "before"]).1["state"], "success");
    assert_eq!((scheduler(&it)["status"].clone(), doctor(&it, "scheduler of dev")), (json!(true), None));
    assert!(metric(&it).ends_with(" 1"));
    let backups = it.dev("env backups", &["--json"]).succeeded().json();
    let backup = text(&backups["backups"][0]["name"]).to_owned();

    let database = it.volume().join("data/airflow.db");
    let damage = || {
        fs::write(database.with_extension("partial"), "damaged").expect("a file");
        fs::rename(database.with_extension("partial"), &database).expect("a damaged database");
    };
    // A tick that is under way may write its own once more.
    let refused = eventually("the scheduler to fail", || {
        damage();
        let asked = Instant::now();
        let done = it.dev("dags unpause", &["--dag-id", "greeting"]);
        assert!(asked.elapsed() < Duration::from_secs(60), "{done:#?}");
        (done.code != 0).then_some(done)
    });
    assert_eq!(refused.code, 3, "{refused:#?}");
    for words in ["is damaged", "not a SQLite database", &backup, "env rollback", "is queued until it recovers"] {
        assert!(refused.stderr.contains(words), "{words} in {refused:#?}");
    }
    let condition = scheduler(&it);
    assert_eq!((&condition["status"], &condition["reason"]), (&json!(false), &json!("DatabaseDamaged")));
    let told = doctor(&it, "scheduler of dev").expect("what is wrong");
    assert!(told.contains("is damaged") && told.contains("env rollback"), "{told}");
    let runs = it.dev("runs list", &[]).succeeded();
    assert!(runs.stdout.contains("before") && runs.stderr.contains("warning: the scheduler of dev:"), "{runs:#?}");
    assert!(it.cli(&["env", "list"]).succeeded().stdout.contains("DatabaseDamaged"));
    assert!(metric(&it).ends_with(" 0"));
    assert_eq!(events(&it), ["DatabaseDamaged"]);
    it.dev("env rollback", &[]).refused(&["--yes"]);
    it.dev("env rollback", &["--yes", "--backup", "20200101T000000Z-1.db"]).refused(&["no backup", "env backups"]);

    let (folder, hidden) = (it.volume().join("data/backups"), it.volume().join("data/hidden"));
    fs::rename(&folder, &hidden).expect("the backups");
    let words = ["environment dev has no backup", "env backups --env dev", "env delete --purge", "are lost"];
    it.dev("env rollback", &["--yes"]).refused(&words);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("what a tick has made since");
    }
    fs::rename(&hidden, &folder).expect("the backups");

    let done = it.dev("env rollback", &["--yes"]).succeeded();
    assert!(done.stdout.contains(&backup), "{done:#?}");
    assert_eq!(it.run_dag("greeting", &["--run-id", "after"]).1["state"], "success");
    assert_eq!((scheduler(&it)["status"].clone(), doctor(&it, "scheduler of dev")), (json!(true), None));
    assert_eq!(events(&it), ["DatabaseDamaged", "Scheduling"]);

    // A roll-back also gets an environment ready whose registry and database were lost.
    it.cli(&["daemon", "stop"]).succeeded();
    let data = it.home().join("data");
    for name in ["registry.db", "registry.db-wal", "registry.db-shm"] {
        let _ = fs::remove_file(data.join(name));
    }
    fs::remove_file(&database).expect("a database");
    let adopted = it.dev("env adopt", &[]);
    assert!(adopted.code != 0 && adopted.stderr.contains("is missing on the Volume"), "{adopted:#?}");
    assert!(it.dev("env backups", &[]).succeeded().stdout.contains(&backup));
    it.dev("env rollback", &["--yes"]).succeeded();
    eventually("an environment that is ready", || {
        (it.dev("env show", &["--json"]).json()["state"] == "ready").then_some(())
    });
    it.dev("runs list", &[]).succeeded();
}

#[test]
fn quarantined_files_are_reported() {
    let it = Installation::with_dev(60);
    it.upload("greeting.py");
    // Put there by others: an upload would refuse it.
    let broken = "from airflow.sdk import DAG, Asset\nwith DAG('a', schedule=[Asset('corpus://größe/1')]): ...\n";
    fs::write(it.volume().join("dags/asset.py"), broken).expect("a DAG file");
    it.dev("tick", &[]).succeeded();
    let condition = eventually("the quarantine", || {
        let condition = scheduler(&it);
        (condition["status"] == false).then_some(condition)
    });
    assert_eq!(condition["reason"], "Quarantined");
    let listed = it.dev("dags list", &[]).succeeded();
    assert!(listed.stderr.contains("warning: the scheduler of dev: it leaves out file asset.py"), "{listed:#?}");
    assert!(it.dev("dags errors", &[]).succeeded().stdout.contains("URI must be ascii"));
    let told = doctor(&it, "scheduler of dev").expect("what is wrong");
    assert!(told.contains("asset.py") && told.contains("dags errors"), "{told}");
    fs::remove_file(it.volume().join("dags/asset.py")).expect("a DAG file");
    it.dev("tick", &[]).succeeded();
    eventually("the scheduler to be well", || (scheduler(&it)["status"] == true).then_some(()));
}

#[test]
fn requests_during_a_deletion_fail_only_with_that_reason() {
    let it = Installation::with_dev(60);
    it.upload("greeting.py");
    let asked = [vec!["env", "delete", "--env", "dev", "--yes", "--purge"]]
        .into_iter()
        .chain((0..5).map(|_| vec!["dags", "trigger", "--env", "dev", "--dag-id", "greeting"]))
        .chain((0..3).map(|_| vec!["dags", "list", "--env", "dev"]));
    let done = it.at_once(&asked.collect::<Vec<_>>());
    let (deletion, others) = done.split_first().expect("answers");
    assert_eq!(deletion.code, 0, "{deletion:#?}");
    for other in others {
        let is_told = other.stderr.contains("is being deleted") || other.stderr.contains("there is no environment");
        assert!(other.code == 0 || (other.code == 1 && is_told), "{other:#?}");
    }
}

/// With `$0`, the CLI, and `$1`, the home, in a mount namespace.
const READ_ONLY: &str = r#"
"$0" daemon start && "$0" dags list --env dev || exit 1
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 2
for command in "dags trigger --env dev --dag-id greeting --run-id refused" "variables set --env dev key value" \
    "env delete --env dev --yes" "doctor" "env list"; do
    echo "== $command"
    "$0" $command 2>&1
    echo "code $?"
done
umount "$1"
echo "== runs list"
"$0" runs list --env dev --json
"$0" daemon stop
"#;

#[test]
fn read_only_home_refuses_changes_at_once() {
    let it = Installation::with_dev(3600);
    it.upload("greeting.py");
    it.cli(&["daemon", "stop"]).succeeded();
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", READ_ONLY]);
    command.arg(it.program("airflow-serverless")).arg(it.home());
    command.env_remove("AIRFLOW_SERVERLESS_ENV").envs(it.variables());
    let output = command.output().expect("unshare");
    let told = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(2) || String::from_utf8_lossy(&output.stderr).starts_with("unshare: ") {
        eprintln!("skipped: there are no mount namespaces here");
        return;
    }
    let parts: Vec<_> = told.split("== ").skip(1).collect();
    let [trigger, variable, deletion, doctor, list, runs] = parts[..] else { panic!("{output:?}") };
    for refused in [trigger, variable, deletion] {
        assert!(refused.contains("home/data cannot be written: Read-only file system"), "{refused}");
        assert!(refused.contains("nothing was changed") && refused.ends_with("code 3\n"), "{refused}");
    }
    assert!(doctor.contains("Read-only file system") && doctor.ends_with("code 1\n"), "{doctor}");
    assert!(list.contains("ready") && list.ends_with("code 0\n"), "{list}");
    assert!(!runs.contains("refused"), "{runs}");
}
