//! Backfills, as people start, follow, hold and end them.

use integration_tests::{Installation, text};
use serde_json::Value;

/// The date, and the state or the reason why there is no run.
fn dates(backfill: &Value) -> Vec<String> {
    let outcome = |run: &Value| match &run["exception_reason"] {
        Value::Null => text(&run["state"]).to_owned(),
        reason => text(reason).to_owned(),
    };
    let runs = backfill["dag_runs"].as_array().expect("dates");
    runs.iter().map(|run| format!("{} {}", &text(&run["logical_date"])[..10], outcome(run))).collect()
}

#[test]
fn backfill_runs_from_dry_run_to_completion() {
    let it = Installation::with_dev(60);
    it.upload("backfilled.py");
    let three_days = ["--dag-id", "backfilled", "--from-date", "2026-01-01", "--to-date", "2026-01-03T00:00:00Z"];
    let create = |more: &[&str]| it.dev("backfills create", &[&three_days, more].concat());

    let foreseen = create(&["--dry-run", "--run-backwards", "--json"]).succeeded().json();
    assert_eq!(
        (&foreseen["total_entries"], text(&foreseen["backfills"][0]["logical_date"])),
        (&3.into(), "2026-01-03T00:00:00Z")
    );
    assert!(it.dev("backfills list", &[]).succeeded().stdout.contains("no backfills"));

    let conf = r#"{"bad": "2026-01-02"}"#;
    let failed = create(&["--dag-run-conf", conf, "--max-active-runs", "2", "--wait", "--json"]);
    assert_eq!(failed.code, 1, "{failed:#?}");
    let failed = failed.json();
    assert_eq!(dates(&failed), ["2026-01-01 success", "2026-01-02 failed", "2026-01-03 success"]);
    assert_eq!((&failed["dag_run_conf"]["bad"], &failed["max_active_runs"]), (&"2026-01-02".into(), &2.into()));
    let run = it.dev(
        "runs show",
        &["--dag-id", "backfilled", "--run-id", text(&failed["dag_runs"][1]["dag_run_id"]), "--json"],
    );
    assert_eq!(run.succeeded().json()["run_type"], "backfill");

    let mended = create(&["--dag-run-conf", "{}", "--reprocess-behavior", "failed", "--wait"]).succeeded();
    assert!(mended.stderr.contains("2026-01-02 00:00:00 UTC success"), "{mended:#?}");
    assert!(mended.stdout.contains("completed") && mended.stdout.contains("already exists"), "{mended:#?}");
    let all = create(&["--dry-run"]).succeeded();
    assert!(all.stdout.contains("no runs to create: each of these dates has one"), "{all:#?}");

    // A paused DAG begins none of its runs.
    it.dev("dags pause", &["--dag-id", "backfilled"]).succeeded();
    let held = create(&["--reprocess-behavior", "completed"]).succeeded();
    assert!(held.stderr.contains("dags unpause --env dev --dag-id backfilled"), "{held:#?}");
    create(&["--reprocess-behavior", "completed"]).refused(&["Another backfill is running", "backfills cancel"]);
    let third = ["--backfill-id", "3"];
    let on = |command: &str, more: &[&str]| it.dev(command, &[&third, more].concat());
    assert_eq!(on("backfills pause", &["--json"]).succeeded().json()["is_paused"], true);
    assert!(it.dev("backfills list", &["--dag-id", "backfilled"]).succeeded().stdout.contains("paused"));
    assert_eq!(on("backfills unpause", &["--json"]).succeeded().json()["is_paused"], false);
    on("backfills cancel", &[]).succeeded();
    let cancelled = on("backfills show", &["--json"]).succeeded().json();
    assert!(cancelled["completed_at"].is_string(), "{cancelled}");
    assert_eq!(cancelled["state"], "cancelled");
    assert!(it.dev("backfills list", &["--limit", "1"]).succeeded().stdout.contains("cancelled"));
    assert_eq!(dates(&cancelled), ["2026-01-01 failed", "2026-01-02 failed", "2026-01-03 failed"]);
    on("backfills cancel", &[]).refused(&["backfill 3 is cancelled"]);
    let listed = it.dev("backfills list", &["--limit", "2", "--json"]).succeeded().json();
    assert_eq!((&listed["total_entries"], &listed["backfills"][0]["id"]), (&3.into(), &3.into()));
    refusals(&it);
    assert_eq!(it.tracebacks(), "", "the scheduler or a worker failed on the way");
}

fn refusals(it: &Installation) {
    let create = |dag_id: &str, from: &str, to: &str, more: &[&str]| {
        let arguments = ["--dag-id", dag_id, "--from-date", from, "--to-date", to, "--json"];
        it.dev("backfills create", &[&arguments, more].concat())
    };
    let cases = [
        (create("absent", "2026-01-01", "2026-01-02", &[]), 404, "dag-not-found"),
        (create("unscheduled", "2026-01-01", "2026-01-02", &["--dry-run"]), 422, "refused"),
        (create("backfilled", "2026-01-02", "2026-01-01", &[]), 422, "refused"),
        (it.dev("backfills show", &["--backfill-id", "9", "--json"]), 404, "backfill-not-found"),
        (it.dev("backfills pause", &["--backfill-id", "9", "--json"]), 404, "backfill-not-found"),
        (it.dev("backfills pause", &["--backfill-id", "1", "--json"]), 409, "backfill-conflict"),
    ];
    for (done, status, kind) in cases {
        let problem = done.refused(&[]).json();
        assert_eq!(problem["status"], status, "{problem}");
        assert!(text(&problem["type"]).ends_with(kind), "{problem}");
    }
    for more in [["--max-active-runs", "0"], ["--reprocess-behavior", "all"], ["--dry-run", "--wait"]] {
        assert_eq!(create("backfilled", "2026-01-01", "2026-01-02", &more).code, 2, "{more:?}");
    }
    assert_eq!(create("backfilled", "yesterday", "2026-01-02", &[]).code, 2);
}
