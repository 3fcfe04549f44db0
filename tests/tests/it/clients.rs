//! Many clients at once: whatever exists once is made once, and those who come late are told.

use integration_tests::{Done, Installation, config, dag_file};

/// How many commands succeeded; all others must have been refused with `reason`.
#[track_caller]
fn winners(ended: Vec<Done>, reason: &str) -> usize {
    let (won, lost): (Vec<_>, Vec<_>) = ended.into_iter().partition(|done| done.code == 0);
    for done in lost {
        done.refused(&[reason]);
    }
    won.len()
}

#[test]
fn concurrent_clients_do_not_conflict() {
    let it = Installation::new();
    let started = it.at_once(&vec![vec!["daemon", "start", "--json"]; 4]);
    let pids: Vec<_> = started.into_iter().map(|done| done.succeeded().json()["pid"].clone()).collect();
    assert!(pids.iter().all(|pid| pid.is_u64() && *pid == pids[0]), "several daemons: {pids:?}");

    let config = it.write("config.yaml", &config(60));
    let create = vec!["create", "--env", "dev", "--config", config.to_str().expect("text")];
    for done in it.at_once(&vec![create; 3]) {
        done.succeeded();
    }
    assert_eq!(it.dev("env show", &["--json"]).json()["generation"], 1, "created more than once");

    let greeting = std::fs::read_to_string(dag_file("greeting.py")).expect("the DAG file");
    let files: Vec<_> = (0..4)
        .map(|number| {
            std::fs::create_dir(it.root().join(number.to_string())).expect("a folder");
            it.write(&format!("{number}/greeting.py"), &greeting.replace("hello", &format!("hello {number}")))
        })
        .collect();
    let upload = |file| vec!["dags", "create", "--env", "dev", "--file", file];
    let uploads: Vec<_> = files.iter().map(|file| upload(file.to_str().expect("text"))).collect();
    assert_eq!(winners(it.at_once(&uploads), "greeting.py exists"), 1, "an upload overwrote another one");

    let trigger = vec!["dags", "trigger", "--env", "dev", "--dag-id", "greeting", "--run-id", "same", "--wait"];
    assert_eq!(winners(it.at_once(&vec![trigger; 4]), "already"), 1, "one run id, several runs");

    let follow = vec!["dags", "trigger", "--env", "dev", "--dag-id", "greeting", "--wait"];
    for done in it.at_once(&vec![follow; 3]) {
        done.succeeded();
    }
    assert_eq!(it.dev("runs list", &["--json"]).json()["total_entries"], 4);
    assert_eq!(it.tracebacks(), "", "the scheduler or a worker failed on the way");
}
