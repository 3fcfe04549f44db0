//! `dags`: uploads files, lists and triggers DAGs.

use std::path::Path;

use airflow_serverless_api::{
    dag::{
        DagDetail, DagFile, DagFileChange, DagFileList, ImportError, ImportErrorList, ListDagFiles, PutMode,
        PutOutcome, ShadowedDag, Task, UpdateDag,
    },
    environment::EnvironmentName,
    problem::Fault,
    run::TriggerDagRun,
};

use super::{Outcome, env::warn_of_scheduler, runs};
use crate::{
    cli::{self, Dags, Delete, Trigger},
    daemon::Daemon,
    error::{CliError, ExitStatus},
    explain, follow, input_file,
    printer::{Printer, counted, date, table},
    session,
};

/// A file in a folder of this name is a plugin, and goes to the plugin folder of the environment.
const PLUGINS: &str = "plugins";

/// The daemon has the same limit; checking it here avoids reading a wrong file.
const MAX_FILE_BYTES: u64 = 4 << 20;

pub async fn run(command: Dags, printer: &Printer) -> Outcome {
    match command {
        Dags::Create(arguments) => put(arguments, PutMode::Create, printer).await,
        Dags::Update(arguments) => put(arguments, PutMode::Update, printer).await,
        Dags::List(environment) => {
            let daemon = session::connect(printer).await?;
            let files = daemon.list_dag_files(&environment.name, &ListDagFiles::default()).await?;
            printer.result(&files, listing);
            warn_of_scheduler(&daemon, &environment.name, printer).await;
            Ok(ExitStatus::Success)
        }
        Dags::Show(dag) => {
            let shown = session::connect(printer).await?.get_dag(&dag.environment.name, &dag.dag_id).await?;
            printer.result(&shown, details);
            Ok(ExitStatus::Success)
        }
        Dags::Errors(environment) => {
            let daemon = session::connect(printer).await?;
            let errors = daemon.list_import_errors(&environment.name).await?;
            printer.result(&errors, import_errors);
            warn_of_scheduler(&daemon, &environment.name, printer).await;
            Ok(ExitStatus::Success)
        }
        Dags::Delete(arguments) => delete(arguments, printer).await,
        Dags::Trigger(arguments) => trigger(arguments, printer).await,
        Dags::Pause(dag) => set_paused(&dag, true, printer).await,
        Dags::Unpause(dag) => set_paused(&dag, false, printer).await,
    }
}

async fn put(arguments: cli::DagFile, mode: PutMode, printer: &Printer) -> Outcome {
    let (filename, content) = read(&arguments.file)?;
    let environment = arguments.environment.name;
    let daemon = session::connect(printer).await?;
    let change = daemon.put_dag_file(&environment, &filename, content, mode).await?;
    for warning in &change.warnings {
        printer.note(&format!("warning: {warning}"));
    }
    printer.result(&change, |change| uploaded(change, &environment));
    Ok(ExitStatus::Success)
}

fn uploaded(change: &DagFileChange, environment: &EnvironmentName) -> String {
    let what = match change.outcome {
        PutOutcome::Created => "uploaded",
        PutOutcome::Updated => "updated",
        PutOutcome::Unchanged => "unchanged",
    };
    let dags: Vec<String> = change
        .dags
        .iter()
        .map(|dag| format!("{} ({})", dag.dag_id, counted(dag.task_count as usize, "task")))
        .collect();
    let text = format!("{} {what} in environment {environment}", change.filename);
    if dags.is_empty() { text } else { format!("{text}: {}", dags.join(", ")) }
}

/// Returns the name in the DAG folder and the content of a DAG file or a plugin.
fn read(path: &Path) -> Result<(String, Vec<u8>), CliError> {
    let unreadable =
        |why: &str, hint| CliError::input(format!("{} cannot be uploaded: {why}", path.display()), Vec::new(), hint);
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(&error.to_string(), None))?;
    if metadata.is_dir() {
        return Err(unreadable("it is a folder", Some("name the files one by one")));
    }
    if metadata.len() > MAX_FILE_BYTES {
        let why = format!("it has {} MiB, a DAG file at most {}", metadata.len() >> 20, MAX_FILE_BYTES >> 20);
        return Err(unreadable(&why, Some("keep data out of the DAG file and load it in a task")));
    }
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| unreadable("its name is not text", None))?;
    let content = input_file::read(path, MAX_FILE_BYTES).map_err(|why| unreadable(&why, None))?;
    let folder = std::path::absolute(path).map_err(|error| unreadable(&error.to_string(), None))?;
    let is_plugin = folder.parent().is_some_and(|parent| parent.ends_with(PLUGINS));
    Ok((if is_plugin { format!("{PLUGINS}/{name}") } else { name.to_owned() }, content))
}

fn listing(list: &DagFileList) -> String {
    if list.files.is_empty() {
        return "no DAG files; `airflow-serverless dags create --env NAME --file FILE` uploads one".to_owned();
    }
    let rows = list.files.iter().flat_map(rows_of_file);
    let mut text = table(&["FILE", "DAG", "SCHEDULE", "STATE"], rows);
    for error in list.files.iter().filter_map(|file| file.import_error.as_ref()) {
        text.push_str(&format!("\n\n{}", import_error(error)));
    }
    text
}

fn import_errors(list: &ImportErrorList) -> String {
    if list.import_errors.is_empty() {
        return "no import errors on the Volume (`watch list` shows quarantined files)".to_owned();
    }
    list.import_errors.iter().map(import_error).collect::<Vec<_>>().join("\n\n")
}

fn import_error(error: &ImportError) -> String {
    let line = error.line.map(|line| format!(":{line}")).unwrap_or_default();
    format!("{}{line} does not import:\n{}", error.filename, error.stack_trace.trim_end())
}

fn details(detail: &DagDetail) -> String {
    let dag = &detail.dag;
    let list = |words: &[String]| if words.is_empty() { "-".to_owned() } else { words.join(", ") };
    let lines = [
        ("DAG", dag.dag_id.clone()),
        ("File", dag.relative_fileloc.clone().unwrap_or_else(|| "-".to_owned())),
        ("Description", detail.description.clone().unwrap_or_else(|| "-".to_owned())),
        ("Schedule", dag.timetable_summary.clone().unwrap_or_else(|| "None".to_owned())),
        ("Next run", date(detail.next_dagrun_run_after)),
        ("State", if dag.is_paused { "paused" } else { "active" }.to_owned()),
        ("Imports", if dag.has_import_errors { "no: see `dags errors`" } else { "yes" }.to_owned()),
        ("Owners", list(&detail.owners)),
        ("Tags", list(&detail.tags)),
    ];
    let head: String = lines.into_iter().map(|(key, value)| format!("{key:<13}{value}\n")).collect();
    let row = |task: &Task| {
        let mapped = if task.is_mapped { "[]" } else { "" };
        vec![format!("{}{mapped}", task.task_id), task.operator_name.clone(), list(&task.downstream_task_ids)]
    };
    format!("{head}\n{}", table(&["TASK", "OPERATOR", "DOWNSTREAM"], detail.tasks.iter().map(row)))
}

fn rows_of_file(file: &DagFile) -> Vec<Vec<String>> {
    let row =
        |dag: &str, schedule: &str, state: &str| [&file.filename, dag, schedule, state].map(str::to_owned).to_vec();
    if file.import_error.is_some() {
        return vec![row("-", "-", "import error")];
    }
    if file.dags.is_empty() && file.shadowed_dags.is_empty() {
        return vec![row("-", "-", if file.is_known { "no DAGs" } else { "not parsed yet" })];
    }
    let dag = |dag: &airflow_serverless_api::dag::Dag| {
        let state = if dag.is_paused { "paused" } else { "active" };
        row(&dag.dag_id, dag.timetable_summary.as_deref().unwrap_or("None"), state)
    };
    let shadowed = |it: &ShadowedDag| row(&it.dag_id, "-", &format!("ignored: {} defines it", it.defined_in));
    file.dags.iter().map(dag).chain(file.shadowed_dags.iter().map(shadowed)).collect()
}

async fn delete(arguments: Delete, printer: &Printer) -> Outcome {
    let environment = &arguments.environment.name;
    let daemon = session::connect(printer).await?;
    let removed = |filename: &str, deactivated: &[String]| match deactivated {
        [] => format!("{filename} removed"),
        dags => format!("{filename} deleted; inactive DAGs: {}", dags.join(", ")),
    };
    if let Some(dag_id) = &arguments.dag_id {
        let deletion = daemon.delete_dag(environment, dag_id, arguments.force).await?;
        printer.result(&deletion, |deletion| removed(&deletion.filename, &deletion.deactivated));
    } else if let Some(filename) = &arguments.file {
        let deletion = daemon.delete_dag_file(environment, filename).await?;
        printer.result(&deletion, |deletion| removed(&deletion.filename, &deletion.deactivated));
    }
    Ok(ExitStatus::Success)
}

async fn set_paused(dag: &cli::Dag, is_paused: bool, printer: &Printer) -> Outcome {
    let daemon = session::connect(printer).await?;
    let dag = daemon.update_dag(&dag.environment.name, &dag.dag_id, UpdateDag { is_paused }).await?;
    printer.result(&dag, |dag| format!("{} is {}", dag.dag_id, if dag.is_paused { "paused" } else { "active" }));
    Ok(ExitStatus::Success)
}

/// Prints a note if the runs of a DAG stay queued because it is paused.
pub async fn note_if_paused(daemon: &Daemon, environment: &EnvironmentName, dag_id: &str, printer: &Printer) {
    let of_it = ListDagFiles { dag_id_pattern: Some(dag_id.to_owned()), paused: Some(true), ..Default::default() };
    // The command has succeeded: a failure of this check does not matter.
    let Ok(found) = daemon.list_dag_files(environment, &of_it).await else { return };
    if found.files.iter().flat_map(|file| &file.dags).any(|dag| dag.dag_id == dag_id) {
        let unpause = format!("airflow-serverless dags unpause --env {environment} --dag-id {dag_id}");
        printer.note(&format!("the DAG is paused: its runs stay queued until `{unpause}`"));
    }
}

async fn trigger(arguments: Trigger, printer: &Printer) -> Outcome {
    let conf = arguments.conf.as_deref().map(|text| parse_conf("--conf", text)).transpose()?;
    let request = TriggerDagRun { dag_run_id: arguments.run_id, logical_date: arguments.logical_date, conf };
    let environment = arguments.environment.name;
    let daemon = session::connect(printer).await?;
    let detail = daemon.trigger_dag_run(&environment, &arguments.dag_id, &request).await?;
    note_if_paused(&daemon, &environment, &arguments.dag_id, printer).await;
    if !arguments.wait {
        printer.result(&detail, |detail| format!("run {} of {} started", detail.run.dag_run_id, detail.run.dag_id));
        return Ok(ExitStatus::Success);
    }
    printer.note(&format!("run {}", detail.run.dag_run_id));
    let detail = follow::run(&daemon, &environment, detail, printer).await?;
    printer.result(&detail, runs::details);
    explain::failure(&daemon, &environment, &detail, printer).await;
    Ok(if detail.run.state == "success" { ExitStatus::Success } else { ExitStatus::Failure })
}

/// Parses a flag with the params of runs.
pub fn parse_conf(flag: &str, text: &str) -> Result<serde_json::Map<String, serde_json::Value>, CliError> {
    serde_json::from_str(text).map_err(|error| {
        let fault = Fault::new(flag, error.to_string());
        let hint = format!("such as {flag} '{{\"date\": \"2026-01-31\"}}'");
        CliError::input("the parameters are not a JSON object", vec![fault], Some(&hint))
    })
}
