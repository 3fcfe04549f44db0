//! Crashes in the middle of work: no attempt is lost, none is carried out twice, nothing is left running.

use std::path::{Path, PathBuf};

use integration_tests::{Installation, databases::rows, eventually, states, text};
use serde_json::{Value, json};

/// A run whose tasks write their tries to a journal and wait for a file.
struct Interrupted<'a> {
    it: &'a Installation,
    dag_id: &'a str,
    run_id: &'a str,
}

impl<'a> Interrupted<'a> {
    fn trigger(it: &'a Installation, dag_id: &'a str, run_id: &'a str) -> Self {
        let run = Self { it, dag_id, run_id };
        let conf = json!({"journal": run.path("journal"), "go": run.path("go")}).to_string();
        it.dev("dags trigger", &["--dag-id", dag_id, "--run-id", run_id, "--conf", &conf]).succeeded();
        run
    }

    fn path(&self, what: &str) -> PathBuf {
        self.it.root().join(format!("{}-{what}", self.run_id))
    }

    fn journal(&self) -> Vec<String> {
        let journal = std::fs::read_to_string(self.path("journal")).unwrap_or_default();
        journal.lines().map(str::to_owned).collect()
    }

    /// Waits until a task has begun; the daemon is started if it does not run.
    fn has_begun(&self, task: &str) {
        self.show();
        let begun = |line: &String| line.starts_with(task);
        eventually(&format!("{task} of {}", self.run_id), || self.journal().iter().any(begun).then_some(()));
    }

    fn let_go(&self) {
        std::fs::write(self.path("go"), "").expect("a written file");
    }

    fn show(&self) -> Value {
        let arguments = ["--dag-id", self.dag_id, "--run-id", self.run_id, "--json"];
        self.it.dev("runs show", &arguments).succeeded().json()
    }

    fn finished(&self) -> Value {
        eventually("the end of the run", || {
            let run = self.show();
            matches!(text(&run["state"]), "success" | "failed").then_some(run)
        })
    }
}

fn runs(it: &Installation, dag_id: &str) -> Value {
    it.dev("runs list", &["--dag-id", dag_id, "--json"]).succeeded().json()
}

/// Waits until none of these processes is there any more.
fn are_gone(pids: &[u32]) {
    let is_there = |pid: &u32| Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok();
    eventually("the end of the containers before the crash", || (!pids.iter().any(is_there)).then_some(()));
}

#[test]
fn no_attempt_is_lost_or_run_twice_after_a_crash() {
    let it = Installation::with_dev(2);

    // An upload that was accepted is there after a crash, and the scheduler learns of it.
    it.upload("interrupted.py");
    it.kill();
    eventually("the DAGs of the upload before the crash", || {
        let files = it.dev("dags list", &["--json"]).succeeded().json();
        let dags = files["files"][0]["dags"].as_array()?.iter().map(|dag| text(&dag["dag_id"]).to_owned());
        (dags.collect::<Vec<_>>() == ["durable", "fragile"]).then_some(())
    });

    // Without retries the attempt that the crash ended is the last one.
    let lost = Interrupted::trigger(&it, "fragile", "lost");
    lost.has_begun("only");
    let before = it.containers();
    assert!(!before.is_empty());
    it.kill();
    assert_eq!(states(&lost.finished()), [("only".into(), "failed".into(), 1)]);
    are_gone(&before);
    assert_eq!(lost.journal(), ["only 1"]);

    // Crashes right after the acceptance, during a task, and while one reports its end.
    let long = Interrupted::trigger(&it, "durable", "long");
    it.kill();
    long.has_begun("first");
    it.kill();
    long.let_go();
    long.has_begun("second");
    it.kill();
    let run = long.finished();
    assert_eq!(run["state"], "success", "{run}");
    let journal = long.journal();
    let mut distinct = journal.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), journal.len(), "an attempt ran twice: {journal:?}");
    assert!(journal.is_sorted(), "a task that had succeeded ran again: {journal:?}");

    let again = Interrupted::trigger(&it, "fragile", "again");
    again.let_go();
    assert_eq!(states(&again.finished()), [("only".into(), "success".into(), 1)]);
}

#[test]
fn interrupted_request_can_be_repeated() {
    let it = Installation::with_dev(60);
    it.upload("greeting.py");
    let run_id = "asked-for-once";
    let trigger = ["dags", "trigger", "--env", "dev", "--dag-id", "greeting", "--run-id", run_id];
    let state = it.home().join("data/modal/state.db");
    let items = || rows(&state, "SELECT id FROM record WHERE kind = 'dict-item' ORDER BY id");
    let before = items();
    let mut first = it.spawn(&trigger);
    // Or whatever a tick has written meanwhile: the request is interrupted then before it has done anything.
    eventually("the command in the Dict", || (items() != before).then_some(()));
    it.kill();
    first.wait().expect("the CLI ends");
    let repeated = it.cli(&trigger);
    assert!(repeated.code == 0 || repeated.stderr.contains("already"), "{repeated:#?}");
    eventually("the run", || (runs(&it, "greeting")["dag_runs"][0]["state"] == "success").then_some(()));
    assert_eq!(runs(&it, "greeting")["total_entries"], 1, "one request, one run");
}
