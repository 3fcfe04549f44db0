//! `backfills`: runs of a DAG for past dates.

use airflow_serverless_api::backfill::{
    self, BackfillAction, BackfillDetail, BackfillList, BackfillRun, DryRunBackfill, DryRunBackfillList, ListBackfills,
};

use super::{Outcome, dags, env::warn_of_scheduler};
use crate::{
    cli::{Backfill, Backfills, CreateBackfill},
    error::ExitStatus,
    explain, follow,
    printer::{Printer, counted, date, state, table},
    session,
};

pub async fn run(command: Backfills, printer: &Printer) -> Outcome {
    match command {
        Backfills::Create(arguments) => create(arguments, printer).await,
        Backfills::List { environment, dag_id, page } => {
            let query = ListBackfills { dag_id, limit: Some(page.limit), offset: Some(page.offset) };
            let daemon = session::connect(printer).await?;
            printer.result(&daemon.list_backfills(&environment.name, &query).await?, listing);
            warn_of_scheduler(&daemon, &environment.name, printer).await;
            Ok(ExitStatus::Success)
        }
        Backfills::Show(backfill) => {
            let daemon = session::connect(printer).await?;
            let detail = daemon.get_backfill(&backfill.environment.name, backfill.backfill_id).await?;
            printer.result(&detail, details);
            Ok(ExitStatus::Success)
        }
        Backfills::Pause(backfill) => change(&backfill, BackfillAction::Pause, printer).await,
        Backfills::Unpause(backfill) => change(&backfill, BackfillAction::Unpause, printer).await,
        Backfills::Cancel(backfill) => change(&backfill, BackfillAction::Cancel, printer).await,
    }
}

async fn create(arguments: CreateBackfill, printer: &Printer) -> Outcome {
    let conf = arguments.dag_run_conf.as_deref().map(|text| dags::parse_conf("--dag-run-conf", text)).transpose()?;
    let latest = arguments.run_on_latest_version;
    let request = backfill::CreateBackfill {
        dag_id: arguments.dag_id,
        from_date: arguments.from_date,
        to_date: arguments.to_date,
        run_backwards: arguments.run_backwards,
        dag_run_conf: conf,
        reprocess_behavior: arguments.reprocess_behavior,
        max_active_runs: Some(arguments.max_active_runs),
        run_on_latest_version: (latest || arguments.no_run_on_latest_version).then_some(latest),
    };
    let environment = arguments.environment.name;
    let daemon = session::connect(printer).await?;
    if arguments.dry_run {
        printer.result(&daemon.dry_run_backfill(&environment, &request).await?, foreseen);
        return Ok(ExitStatus::Success);
    }
    let mut detail = daemon.create_backfill(&environment, &request).await?;
    dags::note_if_paused(&daemon, &environment, &request.dag_id, printer).await;
    if !arguments.wait {
        printer.result(&detail, details);
        return Ok(ExitStatus::Success);
    }
    printer.note(&format!("backfill {}", detail.backfill.id));
    detail = follow::backfill(&daemon, &environment, detail, printer).await?;
    printer.result(&detail, details);
    let failed = detail.dag_runs.iter().find(|run| run.state.as_deref() == Some("failed"));
    if let Some(run_id) = failed.and_then(|run| run.dag_run_id.as_deref()) {
        let run = daemon.get_dag_run(&environment, &detail.backfill.dag_id, run_id).await?;
        explain::failure(&daemon, &environment, &run, printer).await;
    }
    let has_failed = |run: &BackfillRun| run.state.as_deref().is_some_and(|state| state != "success");
    Ok(if detail.dag_runs.iter().any(has_failed) { ExitStatus::Failure } else { ExitStatus::Success })
}

async fn change(backfill: &Backfill, action: BackfillAction, printer: &Printer) -> Outcome {
    let daemon = session::connect(printer).await?;
    let detail = daemon.change_backfill(&backfill.environment.name, backfill.backfill_id, action).await?;
    printer.result(&detail, details);
    Ok(ExitStatus::Success)
}

fn listing(list: &BackfillList) -> String {
    if list.backfills.is_empty() {
        return "no backfills; `airflow-serverless backfills create` starts one".to_owned();
    }
    let row = |backfill: &backfill::Backfill| {
        let dates = [Some(backfill.from_date), Some(backfill.to_date), Some(backfill.created_at)].map(date);
        let [from, to, created] = dates;
        vec![backfill.id.to_string(), backfill.dag_id.clone(), backfill.state.name().to_owned(), from, to, created]
    };
    let header = ["ID", "DAG", "STATE", "FROM", "TO", "CREATED"];
    let mut text = table(&header, list.backfills.iter().map(row));
    let shown = list.backfills.len() as i64;
    if shown < list.total_entries {
        text.push_str(&format!("\n{shown} of {} backfills; `--limit` and `--offset` show others", list.total_entries));
    }
    text
}

fn details(detail: &BackfillDetail) -> String {
    let backfill = &detail.backfill;
    let row = |run: &BackfillRun| {
        // A date has a run with a state, or a reason why there is none.
        let outcome = run.exception_reason.clone().unwrap_or_else(|| state(run.state.as_deref()));
        vec![follow::name_of_date(run), outcome, run.dag_run_id.clone().unwrap_or_else(|| "-".to_owned())]
    };
    format!(
        "backfill {} of {}: {}\n\n{}",
        backfill.id,
        backfill.dag_id,
        backfill.state.name(),
        table(&["DATE", "STATE", "RUN"], detail.dag_runs.iter().map(row))
    )
}

fn foreseen(list: &DryRunBackfillList) -> String {
    if list.backfills.is_empty() {
        return "no runs to create: each of these dates has one (see --reprocess-behavior)".to_owned();
    }
    let row = |run: &DryRunBackfill| run.partition_key.clone().unwrap_or_else(|| date(run.logical_date));
    format!(
        "{}\n\n{}",
        counted(list.total_entries as usize, "run"),
        table(&["DATE"], list.backfills.iter().map(|run| vec![row(run)]))
    )
}
