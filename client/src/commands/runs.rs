//! `runs`: what ran, and how it went.

use airflow_serverless_api::run::{DagRun, DagRunDetail, DagRunList, ListDagRuns};

use super::Outcome;
use crate::{
    cli::Runs,
    daemon::Daemon,
    failure::ExitStatus,
    follow,
    printer::{Printer, date, seconds, state, table},
};

pub async fn run(command: Runs, printer: &Printer) -> Outcome {
    let daemon = Daemon::connect(printer).await?;
    match command {
        Runs::List { environment, dag_id, limit } => {
            let query = ListDagRuns { dag_id, limit: Some(limit), offset: None };
            printer.result(&daemon.list_dag_runs(&environment.name, &query).await?, listing);
        }
        Runs::Show(run) => {
            let detail = daemon.get_dag_run(&run.environment.name, &run.dag_id, &run.run_id).await?;
            printer.result(&detail, details);
        }
    }
    Ok(ExitStatus::Success)
}

fn listing(list: &DagRunList) -> String {
    if list.dag_runs.is_empty() {
        return "no runs; `airflow-serverless dags trigger --env NAME --dag-id ID` starts one".to_owned();
    }
    let row = |run: &DagRun| {
        vec![
            run.dag_id.clone(),
            run.dag_run_id.clone(),
            state(Some(&run.state)),
            date(run.start_date),
            seconds(run.duration),
        ]
    };
    let mut text = table(&["DAG", "RUN", "STATE", "STARTED (UTC)", "DURATION"], list.dag_runs.iter().map(row));
    let shown = list.dag_runs.len() as i64;
    if shown < list.total_entries {
        text.push_str(&format!("\n{shown} of {} runs; `--limit` shows more", list.total_entries));
    }
    text
}

/// A run and the table of its tasks.
pub fn details(detail: &DagRunDetail) -> String {
    let run = &detail.run;
    let head = format!("{} {}: {} in {}", run.dag_id, run.dag_run_id, state(Some(&run.state)), seconds(run.duration));
    format!("{head}\n\n{}", follow::tasks(&detail.task_instances))
}
