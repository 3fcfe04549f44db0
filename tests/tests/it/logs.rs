//! Logs of tasks, with what the triggers say that they wait for.

use std::io::{BufRead, BufReader};

use integration_tests::{Done, Installation, eventually, text};
use serde_json::{Value, json};

/// What the log says, in its order, each of the words once.
fn found<'a>(log: &Value, words: &[&'a str]) -> Vec<&'a str> {
    let lines = log["lines"].as_array().expect("lines");
    let known = |line: &Value| words.iter().copied().find(|word| text(&line["event"]).contains(word));
    let mut found: Vec<_> = lines.iter().filter_map(known).collect();
    found.dedup();
    found
}

#[test]
fn trigger_output_is_in_the_task_log() {
    let it = Installation::with_dev(60);
    it.upload("deferring.py");
    let file = it.root().join("file");
    let conf = json!({"file": file}).to_string();
    it.dev("dags trigger", &["--dag-id", "deferring", "--run-id", "d", "--conf", &conf]).succeeded();
    let run = ["--dag-id", "deferring", "--run-id", "d", "--json"];
    let words = ["before the file", "(ID 1) starting", "Found File", "after the file"];
    let said = || it.dev("tasks logs", &[&run[..], &["--task-id", "waits"]].concat());

    eventually("the trigger to be heard of", || {
        let log = said();
        (log.code == 0 && found(&log.json(), &words) == words[..2]).then_some(())
    });
    let state = || it.dev("runs show", &run).succeeded().json();
    assert_eq!(state()["task_instances"][0]["state"], "deferred");
    let task = ["tasks", "logs", "--env", "dev", "--dag-id", "deferring", "--run-id", "d", "--task-id", "waits"];
    let following = it.spawn(&[&task[..], &["--follow"]].concat());
    std::fs::write(file, "").expect("a file");
    eventually("the end of the run", || (state()["state"] == "success").then_some(()));
    let log = said().succeeded().json();
    assert_eq!(found(&log, &words), words, "{log}");
    assert_eq!(log["try_number"], 1);
    // Who follows sees all of it, each line once, and comes to the end with the task.
    let followed = Done::from(following.wait_with_output().expect("the CLI ends")).succeeded().stdout;
    let shown = it.cli(&task).succeeded().stdout;
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.trim_end().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&followed), sorted(&shown));
    assert_eq!(it.tracebacks(), "", "the scheduler or a worker failed on the way");
}

#[test]
fn container_output_is_shown_and_followed() {
    let it = Installation::with_dev(3600);
    it.upload("greeting.py");
    let follow = ["logs", "--env", "dev", "--tail", "0", "--follow", "--json"];
    let mut following = it.spawn(&follow);
    let mut lines = BufReader::new(following.stdout.take().expect("its output")).lines();
    it.run_dag("greeting", &[]).0.succeeded();
    // The scheduler's own words on the run come as they are printed.
    let followed = lines.find_map(|line| {
        let line: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        text(&line["message"]).contains("greeting").then_some(line)
    });
    let followed = followed.expect("the scheduler to speak of the run");
    assert_eq!(followed["function"], "run_tick", "{followed}");
    let shown = it.dev("logs", &["--json"]).succeeded().json();
    assert!(shown["lines"].as_array().expect("lines").contains(&followed), "{followed} is not in {shown}");
    let one = it.dev("logs", &["--tail", "1"]).succeeded().stdout;
    assert_eq!(one.trim_end().lines().count(), 1, "{one}");
    // It ends with the environment.
    it.dev("env delete", &["--yes"]).succeeded();
    lines.for_each(drop);
    assert!(following.wait().expect("the CLI ends").success());
    it.dev("logs", &[]).refused(&["there is no environment dev"]);
}
