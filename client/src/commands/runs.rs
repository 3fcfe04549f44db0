//! `runs`: lists, shows and changes DAG runs.

use airflow_serverless_api::run::{ClearDagRun, DagRun, DagRunDetail, DagRunList, ListDagRuns};

use super::{Outcome, env::warn_of_scheduler, tasks};
use crate::{
    cli::Runs,
    error::ExitStatus,
    follow,
    printer::{Printer, date, seconds, state, table},
    session,
};

pub async fn run(command: Runs, printer: &Printer) -> Outcome {
    let daemon = session::connect(printer).await?;
    match command {
        Runs::List { environment, dag_id, state, limit, offset } => {
            let query = ListDagRuns { dag_id, state, limit: Some(limit), offset: Some(offset) };
            let list = daemon.list_dag_runs(&environment.name, &query).await?;
            if let Some(dag_id) = query.dag_id.filter(|_| list.total_entries == 0 && query.state.is_none()) {
                // Runs outlive their DAG, so an empty list is an error only if the DAG does not exist.
                daemon.get_dag(&environment.name, &dag_id).await?;
            }
            printer.result(&list, listing);
            warn_of_scheduler(&daemon, &environment.name, printer).await;
        }
        Runs::Show(run) => {
            let detail = daemon.get_dag_run(&run.environment.name, &run.dag_id, &run.run_id).await?;
            printer.result(&detail, details);
            warn_of_scheduler(&daemon, &run.environment.name, printer).await;
        }
        Runs::Clear { run, only_failed } => {
            let path = (run.dag_id.as_str(), run.run_id.as_str());
            let cleared = daemon.clear_dag_run(&run.environment.name, path, ClearDagRun { only_failed }).await?;
            printer.result(&cleared, tasks::cleared);
        }
        Runs::Mark { run, state } => {
            let path = (run.dag_id.as_str(), run.run_id.as_str());
            printer.result(&daemon.update_dag_run(&run.environment.name, path, state).await?, details);
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
    let mut text = table(&["DAG", "RUN", "STATE", "STARTED", "DURATION"], list.dag_runs.iter().map(row));
    let shown = list.dag_runs.len() as i64;
    if shown < list.total_entries {
        text.push_str(&format!("\n{shown} of {} runs; `--limit` and `--offset` show others", list.total_entries));
    }
    text
}

/// Formats a run and the table of its tasks.
pub fn details(detail: &DagRunDetail) -> String {
    let run = &detail.run;
    let head = format!("{} {}: {} in {}", run.dag_id, run.dag_run_id, state(Some(&run.state)), seconds(run.duration));
    format!("{head}\n\n{}", follow::tasks(&detail.task_instances))
}
