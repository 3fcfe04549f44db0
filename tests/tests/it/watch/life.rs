//! The life of watches: daemons that are away, folders that vanish, polling.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime},
};

use integration_tests::{Installation, eventually, text, workspace};
use serde_json::json;

use super::{Watched, dag, write};

impl Watched<'_> {
    /// Starts the daemon, and waits until it has uploaded the file.
    #[track_caller]
    fn has_uploaded_after_start(&self, name: &str, content: &str) {
        self.it.cli(&["daemon", "start"]).succeeded();
        self.has_uploaded(name, Some(content));
    }
}

#[test]
fn changes_during_downtime_are_synced() {
    let it = Installation::with_dev(60);
    let watched = Watched::add(&it, "dags", &["--delete"]);
    for name in ["kept", "changed", "deleted"] {
        watched.write(&format!("{name}.py"), &dag(name, "one"));
    }
    watched.has_uploaded("deleted.py", Some(&dag("deleted", "one")));
    let uploads = watched.becomes("in_sync")["uploads"].as_i64();

    // Whatever happens while nobody looks is found out at the start; what is as it was is not uploaded again.
    it.kill();
    watched.write("changed.py", &dag("changed", "two"));
    watched.write("added.py", &dag("added", "one"));
    fs::remove_file(watched.path("deleted.py")).expect("removed");
    watched.has_uploaded_after_start("changed.py", &dag("changed", "two"));
    watched.has_uploaded("added.py", Some(&dag("added", "one")));
    watched.has_uploaded("deleted.py", None);
    assert_eq!(watched.becomes("in_sync")["uploads"].as_i64(), uploads.map(|count| count + 1));

    // So is what others did to the Volume.
    it.kill();
    write(&watched.on_volume("kept.py"), "# something else\n");
    fs::remove_file(watched.on_volume("added.py")).expect("removed");
    write(&watched.on_volume("changed.py"), &dag("changed", "owt"));
    let replaced = fs::File::options().write(true).open(watched.on_volume("changed.py")).expect("the file");
    replaced.set_modified(SystemTime::now() + Duration::from_secs(60)).expect("a later time");
    watched.has_uploaded_after_start("kept.py", &dag("kept", "one"));
    watched.has_uploaded("added.py", Some(&dag("added", "one")));
    watched.has_uploaded("changed.py", Some(&dag("changed", "two")));

    // Killed at any moment after a save.
    for round in 0..4 {
        let word = format!("round{round}");
        watched.write("changed.py", &dag("changed", &word));
        let mut looks = 0;
        eventually("some moment", || {
            looks += 1;
            (looks > round * 2).then_some(())
        });
        it.kill();
        watched.has_uploaded_after_start("changed.py", &dag("changed", &word));
    }
    watched.becomes("in_sync");
    assert_eq!(it.tracebacks(), "", "the scheduler failed on the way");
}

#[test]
fn missing_folder_does_not_delete_files() {
    let it = Installation::with_dev(60);
    let watched = Watched::add(&it, "dags", &["--delete"]);
    watched.write("etl.py", &dag("etl", "one"));
    watched.write("other.py", &dag("other", "one"));
    watched.has_uploaded("other.py", Some(&dag("other", "one")));
    watched.becomes("in_sync");

    let aside = it.root().join("aside");
    fs::rename(&watched.folder, &aside).expect("renamed");
    let watch = watched.becomes("missing");
    assert_eq!(watch["message"], "the folder is not there");
    watched.has_uploaded("etl.py", Some(&dag("etl", "one")));
    // As where something is no longer mounted.
    fs::create_dir(&watched.folder).expect("a folder");
    let watch = eventually("the empty folder", || {
        let watch = watched.show();
        text(&watch["message"]).contains("empty").then_some(watch)
    });
    assert_eq!(watch["state"], "missing");
    watched.has_uploaded("etl.py", Some(&dag("etl", "one")));

    // Another one in its place is taken for what it is, and so is the old one when it is back.
    fs::remove_dir(&watched.folder).expect("removed");
    write(&it.root().join("another/etl.py"), &dag("etl", "two"));
    fs::rename(it.root().join("another"), &watched.folder).expect("renamed");
    watched.has_uploaded("etl.py", Some(&dag("etl", "two")));
    watched.has_uploaded("other.py", None);
    watched.becomes("in_sync");
    fs::rename(&watched.folder, it.root().join("another")).expect("renamed");
    fs::rename(&aside, &watched.folder).expect("renamed");
    watched.has_uploaded("etl.py", Some(&dag("etl", "one")));
    watched.becomes("in_sync");
    watched.write("etl.py", &dag("etl", "three"));
    watched.has_uploaded("etl.py", Some(&dag("etl", "three")));

    // The last file of the folder itself is a file like any other.
    fs::remove_file(watched.path("etl.py")).expect("removed");
    fs::remove_file(watched.path("other.py")).expect("removed");
    watched.has_uploaded("etl.py", None);
    watched.has_uploaded("other.py", None);
    watched.becomes("in_sync");
}

/// The file is on the Volume all the while.
fn stays(watched: &Watched<'_>, name: &str, seconds: u64) {
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        assert!(watched.on_volume(name).exists(), "{name} was removed");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn files_are_not_removed_while_a_folder_is_refilled() {
    let it = Installation::with_dev(60);
    let watched = Watched::add(&it, "dags", &["--delete"]);
    for name in ["first", "second"] {
        watched.write(&format!("{name}.py"), &dag(name, "one"));
    }
    watched.has_uploaded("second.py", Some(&dag("second", "one")));
    watched.becomes("in_sync");

    // The folder is replaced by one that is filled slowly, as by a clone.
    fs::remove_dir_all(&watched.folder).expect("removed");
    watched.write("first.py", &dag("first", "two"));
    watched.has_uploaded("first.py", Some(&dag("first", "two")));
    stays(&watched, "second.py", 2);
    watched.write("second.py", &dag("second", "two"));
    stays(&watched, "second.py", 1);
    watched.has_uploaded("second.py", Some(&dag("second", "two")));
    watched.becomes("in_sync");

    // A removal is undone while another file of its burst is imported.
    fs::remove_file(watched.path("second.py")).expect("removed");
    let imported = it.root().join("imported");
    watched
        .write("first.py", &format!("import time\nopen({imported:?}, 'w')\ntime.sleep(2)\n{}", dag("first", "three")));
    eventually("the import of the other file", || imported.exists().then_some(()));
    watched.write("second.py", &dag("second", "two"));
    stays(&watched, "second.py", 3);
    watched.becomes("in_sync");
    assert!(watched.on_volume("second.py").exists());
    // One that is meant is carried out.
    fs::remove_file(watched.path("second.py")).expect("removed");
    watched.has_uploaded("second.py", None);

    // What is in a folder can be removed like all else, once nobody watches it.
    watched.write("team/etl.py", &dag("etl", "one"));
    watched.has_uploaded("team/etl.py", Some(&dag("etl", "one")));
    it.dev("watch remove", &[watched.folder.to_str().expect("text")]).succeeded();
    it.dev("dags delete", &["--file", "../dags/team/etl.py"]).refused(&["from the DAG folder down"]);
    it.dev("dags delete", &["--file", "team/etl.py"]).succeeded();
    watched.has_uploaded("team/etl.py", None);
}

#[test]
fn uninstallable_requirements_are_quarantined() {
    let it = Installation::with_dev(60);
    let watched = Watched::add(&it, "dags", &[]);
    watched.write("team/etl.py", &dag("etl", "one"));
    watched.write("team/requirements.txt", "# none\n");
    watched.has_uploaded("team/requirements.txt", Some("# none\n"));
    watched.becomes("in_sync");
    watched.write("team/requirements.txt", "absent @ file:///no/such/absent-1.0-py3-none-any.whl\n");
    let watch = watched.becomes("invalid");
    assert!(watch["invalid"].to_string().contains("held back, as it would break team/etl.py"), "{watch}");
    watched.has_uploaded("team/requirements.txt", Some("# none\n"));
    watched.write("team/requirements.txt", "# none any more\n");
    watched.has_uploaded("team/requirements.txt", Some("# none any more\n"));
    watched.becomes("in_sync");
}

/// Starts the daemon where the system watches only so many folders; `false` if this user may not set that.
fn start_with_few_watches(it: &Installation, most: u32) -> bool {
    let in_namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", script]).arg(it.program("airflow-serverless"));
        command.env_remove("AIRFLOW_SERVERLESS_ENV").envs(it.variables());
        command.output().is_ok_and(|output| output.status.success())
    };
    let limit = format!("echo {most} > /proc/sys/user/max_inotify_watches");
    if !in_namespace(&limit) {
        return false;
    }
    assert!(in_namespace(&format!("{limit} && exec \"$0\" daemon start")), "the daemon does not start: {}", it.log());
    true
}

#[test]
fn exhausted_inotify_watches_fall_back_to_polling() {
    let it = Installation::new();
    if !start_with_few_watches(&it, 4) {
        eprintln!("skipped: there are no user namespaces here");
        return;
    }
    it.create_dev(60).succeeded();
    let watched = Watched::add(&it, "dags", &[]);
    for number in 0..8 {
        watched.write(&format!("folder_{number}/data.sql"), "select 1");
    }
    watched.has_uploaded("folder_7/data.sql", Some("select 1"));
    let watch = watched.becomes("in_sync");
    assert_eq!(watch["mode"], "polling", "{watch}");
    assert!(text(&watch["warning"]).contains("fs.inotify.max_user_watches"), "{watch}");
    watched.write("folder_7/data.sql", "select 2");
    watched.has_uploaded("folder_7/data.sql", Some("select 2"));
    assert_eq!(it.log().matches("a folder is polled").count(), 1, "told once, however often it is looked at");
}

#[test]
fn configured_polling_syncs_and_idle_validators_end() {
    let it = Installation::new();
    it.set_up_daemon("watch:\n  polling: true\n  polling_seconds: 1\nvalidator:\n  idle_seconds: 1\n");
    // The environment may come later than the watch's first look.
    it.create_dev(60).succeeded();
    let watched = Watched::add(&it, "dags", &["--delete", "--pattern", "*.py", "--pattern", "!draft_*"]);
    watched.write("etl.py", &dag("etl", "one"));
    watched.write("draft_etl.py", "1 / 0\n");
    watched.write("notes.txt", "nothing\n");
    watched.has_uploaded("etl.py", Some(&dag("etl", "one")));
    let watch = watched.becomes("in_sync");
    assert_eq!((&watch["mode"], &watch["total_files"]), (&json!("polling"), &json!(1)), "{watch}");
    assert!(text(&watch["warning"]).contains("airflowd.yaml"), "{watch}");
    let listed = it.cli(&["watch", "list"]).succeeded();
    assert!(listed.stdout.contains("warning: airflowd.yaml"), "{listed:#?}");
    fs::remove_file(watched.path("etl.py")).expect("removed");
    watched.has_uploaded("etl.py", None);
    let early = it.root().join("early");
    write(&early.join("early.py"), &dag("early", "one"));
    let early = early.to_str().expect("text");
    let added = it.dev("watch add", &[early, "--wait", "--json"]).succeeded().json();
    assert_eq!((&added["total_in_sync"], &added["total_files"]), (&json!(1), &json!(1)), "{added}");
    it.dev("watch remove", &[early]).succeeded();

    // Nobody asks the validator any more, and it goes, with its files.
    let work = it.home().join("cache/validator");
    let is_empty = || fs::read_dir(&work).map_or(true, |mut entries| entries.next().is_none());
    eventually("the end of the idle validator", || is_empty().then_some(()));
    watched.write("etl.py", &dag("etl", "two"));
    watched.has_uploaded("etl.py", Some(&dag("etl", "two")));

    // A file that kills it, and not just the child that imports the file, is told so, and harms no other.
    let killer = "import os, signal\nstat = open(f'/proc/{os.getppid()}/stat').read()\n\
                  os.kill(int(stat.rpartition(')')[2].split()[1]), signal.SIGKILL)\nwhile True: pass\n";
    let killer = it.write("killer.py", killer);
    it.dev("dags create", &["--file", killer.to_str().expect("text")]).refused(&["ends the process that imports it"]);
    watched.write("etl.py", &dag("etl", "three"));
    watched.has_uploaded("etl.py", Some(&dag("etl", "three")));

    // What a killed one has left goes at the next start.
    eventually("a record of the third upload", || (watched.uploads() == 3).then_some(()));
    it.kill();
    write(&work.join("left/by/a/killed.one"), "");
    it.cli(&["daemon", "start"]).succeeded();
    assert!(!work.join("left").exists());
    let etl = workspace().join("examples/dags/etl.py");
    it.dev("dags update", &["--file", etl.to_str().expect("text")]).succeeded();
    assert_eq!(watched.uploads(), 3, "the folder was uploaded although nothing in it has changed");
}
