//! `env`: lists, shows and manages environments.

use std::collections::BTreeMap;

use airflow_serverless_api::{
    Secret,
    backup::{Backup, BackupList},
    config::{Airflow, Config, DatabaseKind},
    environment::{
        Condition, ConditionKind, Environment, EnvironmentChange, EnvironmentList, EnvironmentName, Reason, Target,
        UnregisteredEnvironment, UnregisteredEnvironmentList,
    },
};

use serde::Serialize;

use super::Outcome;
use crate::{
    cli::{self, DeleteEnvironment, Env, RollBack},
    daemon::Daemon,
    error::{CliError, ExitStatus},
    follow,
    printer::{Printer, date, table},
    session,
};

pub async fn run(command: Env, printer: &Printer) -> Outcome {
    let daemon = session::connect(printer).await?;
    match command {
        Env::List => list(&daemon, printer).await?,
        Env::Adopt(environment) => return adopt(&daemon, &environment.name, printer).await,
        Env::Delete(arguments) => return delete(&daemon, arguments, printer).await,
        Env::Backups(environment) => printer.result(&daemon.list_backups(&environment.name).await?, backups),
        Env::Rollback(arguments) => return roll_back(&daemon, arguments, printer).await,
        Env::Show(environment) => printer.result(&daemon.get_environment(&environment.name).await?, details),
    }
    Ok(ExitStatus::Success)
}

pub async fn tick(environment: cli::Environment, printer: &Printer) -> Outcome {
    session::connect(printer).await?.tick_environment(&environment.name).await?;
    printer.result(&serde_json::json!({"environment": environment.name}), |_| "scheduler tick done".to_owned());
    Ok(ExitStatus::Success)
}

/// The output of `env list --json`.
#[derive(Serialize)]
struct Listing {
    #[serde(flatten)]
    list: EnvironmentList,
    /// Deployed but not registered environments; only looked up if none is registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    unregistered: Option<UnregisteredEnvironmentList>,
}

/// An empty registry may mean that it was lost.
async fn list(daemon: &Daemon, printer: &Printer) -> Result<(), CliError> {
    let list = daemon.list_environments().await?;
    let mut unregistered = None;
    if list.environments.is_empty() {
        // A failure here must not fail the command: an older daemon lacks this request.
        let found = daemon.list_unregistered_environments().await.unwrap_or_else(|failure| {
            UnregisteredEnvironmentList { error: Some(failure.problem().detail), ..Default::default() }
        });
        for UnregisteredEnvironment { name, target, .. } in &found.environments {
            printer.note(&format!(
                "warning: {name} is deployed ({target}), but not in the daemon's registry; \
                 `airflow-serverless env adopt --env {name}` registers it"
            ));
        }
        if let Some(error) = &found.error {
            printer.note(&format!("warning: there may be environments that are not listed: {error}"));
        }
        unregistered = Some(found);
    }
    printer.result(&Listing { list, unregistered }, |listing| overview(&listing.list.environments));
    Ok(())
}

async fn adopt(daemon: &Daemon, name: &EnvironmentName, printer: &Printer) -> Outcome {
    let change = daemon.adopt_environment(name).await?;
    let Some(operation) = change.operation else {
        printer.result(&change, |_| format!("environment {name} is registered; nothing was changed"));
        return Ok(ExitStatus::Success);
    };
    let operation = follow::operation(daemon, operation, printer).await?;
    let (status, reason) = (follow::status(&operation), follow::shortfall(&operation));
    let change = EnvironmentChange { environment: daemon.get_environment(name).await?, operation: Some(operation) };
    printer.result(&change, |_| match reason {
        None => format!(
            "environment {name} is registered and ready; its folders are not watched any more (`watch add` adds them)"
        ),
        Some(reason) => format!("environment {name} is registered, but not ready: {reason}"),
    });
    Ok(status)
}

async fn delete(daemon: &Daemon, arguments: DeleteEnvironment, printer: &Printer) -> Outcome {
    let (name, purge) = (arguments.environment.name, arguments.purge);
    let environment = daemon.get_environment(&name).await?;
    if !arguments.yes && !is_meant(&environment, purge, printer)? {
        printer.note("nothing was deleted");
        return Ok(ExitStatus::Failure);
    }
    let mut change = daemon.delete_environment(&name, purge).await?;
    let (mut status, mut reason) = (ExitStatus::Success, None);
    if let Some(operation) = change.operation.take() {
        let operation = follow::operation(daemon, operation, printer).await?;
        (status, reason) = (follow::status(&operation), follow::shortfall(&operation));
        change.operation = Some(operation);
    }
    printer.result(&change, |_| match (reason, purge) {
        (Some(reason), _) => format!("environment {name} was not deleted: {reason}"),
        (None, true) => format!("environment {name} and its data were deleted"),
        (None, false) => format!(
            "environment {name} and its watches were deleted; its data stay on the Volume {}, and a new `create` uses \
             them again",
            environment.names.volume
        ),
    });
    Ok(status)
}

async fn roll_back(daemon: &Daemon, arguments: RollBack, printer: &Printer) -> Outcome {
    let name = arguments.environment.name;
    let known = daemon.list_backups(&name).await?.backups;
    let wanted =
        arguments.backup.or_else(|| known.iter().find(|backup| !backup.replaced).map(|backup| backup.name.clone()));
    let at = known.iter().find(|backup| Some(&backup.name) == wanted.as_ref()).map(|backup| backup.created_at);
    // If there is no backup, the request is refused without a question.
    if !arguments.yes && at.is_some() {
        let question = format!(
            "Restore the metadata of environment {name} as of {} UTC? Runs, variables, connections and pools become what \
             they were then, and running tasks are stopped. [y/N] ",
            date(at)
        );
        let answer = printer.ask(&question).ok_or_else(nobody)?;
        if !matches!(answer.to_lowercase().as_str(), "y" | "yes") {
            printer.note("nothing was changed");
            return Ok(ExitStatus::Failure);
        }
    }
    let rolled_back = daemon.roll_back(&name, wanted).await?;
    printer.result(&rolled_back, |done| format!("environment {name} restored from backup {}", done.backup));
    Ok(ExitStatus::Success)
}

fn backups(list: &BackupList) -> String {
    if list.backups.is_empty() {
        return "no backups yet; with SQLite, the scheduler creates one per hour of activity and keeps six".to_owned();
    }
    let row = |backup: &Backup| vec![backup.name.clone(), date(Some(backup.created_at)), backup.bytes.to_string()];
    table(&["BACKUP", "CREATED", "BYTES"], list.backups.iter().map(row))
}

fn nobody() -> CliError {
    CliError::input("confirmation is required, but there is no terminal", Vec::new(), Some("`--yes` confirms it"))
}

/// Asks for confirmation once, and twice if data would be lost.
fn is_meant(environment: &Environment, purge: bool, printer: &Printer) -> Result<bool, CliError> {
    let (name, names) = (&environment.name, &environment.names);
    if !purge {
        printer.note(&format!(
            "This stops running tasks and deletes the App {} and the watches. The Volume {} with DAG files, metadata, XComs \
             and logs, the Dict {} and the Secret {} stay, and a new `create` uses them again.",
            names.app, names.volume, names.dict, names.secret
        ));
    }
    let answer = printer.ask(&format!("Delete environment {name}? [y/N] ")).ok_or_else(nobody)?;
    if !matches!(answer.to_lowercase().as_str(), "y" | "yes") {
        return Ok(false);
    }
    if !purge {
        return Ok(true);
    }
    printer.note(&format!(
        "This deletes the Volume {} with DAG files, metadata, XComs and logs, the Dict {} and the Secret {} permanently.",
        names.volume, names.dict, names.secret
    ));
    let answer = printer.ask("Type the name of the environment to continue: ").ok_or_else(nobody)?;
    Ok(answer == name.as_str())
}

fn overview(environments: &[Environment]) -> String {
    if environments.is_empty() {
        return "no environments; `airflow-serverless create --env NAME --config FILE` creates one".to_owned();
    }
    let row = |environment: &Environment| {
        vec![
            environment.name.to_string(),
            environment.state.to_string(),
            target(environment.target).to_owned(),
            database(&environment.config).to_owned(),
            scheduler(environment),
            date(Some(environment.created_at)),
        ]
    };
    table(&["NAME", "STATE", "TARGET", "DATABASE", "SCHEDULER", "CREATED"], environments.iter().map(row))
}

fn scheduler(environment: &Environment) -> String {
    match environment.condition(ConditionKind::SchedulerHealthy) {
        Some(found) if found.status => "healthy".to_owned(),
        Some(found) => format!("{:?}", found.reason),
        None => "-".to_owned(),
    }
}

/// Warns if the scheduler is not healthy, after output that depends on it.
pub async fn warn_of_scheduler(daemon: &Daemon, name: &EnvironmentName, printer: &Printer) {
    let Ok(environment) = daemon.get_environment(name).await else { return };
    let found = environment.condition(ConditionKind::SchedulerHealthy);
    if let Some(Condition { status: false, reason, message, .. }) = found
        && *reason != Reason::NeverDeployed
    {
        printer.note(&format!("warning: the scheduler of {name}: {message}"));
    }
}

fn details(environment: &Environment) -> String {
    let config = &environment.config;
    let mut lines = vec![
        ("Name", environment.name.to_string()),
        ("State", environment.state.to_string()),
        ("Target", target(environment.target).to_owned()),
        ("Database", database(config).to_owned()),
        ("Scheduler", format!("every {} s", config.scheduler.interval_seconds)),
        (
            "Executor",
            format!("parallelism {}, task timeout {} s", config.executor.parallelism, config.executor.task_timeout),
        ),
        ("Generation", format!("{} (observed {})", environment.generation, environment.observed_generation)),
        ("App", environment.names.app.clone()),
        ("Volume", environment.names.volume.clone()),
        ("Dict", environment.names.dict.clone()),
        ("Secret", environment.names.secret.clone()),
        ("Variables", names(&config.env)),
        ("Airflow", options(&config.airflow)),
        ("Created", date(Some(environment.created_at))),
        ("Updated", date(Some(environment.updated_at))),
    ];
    lines.extend(environment.error.clone().map(|error| ("Error", error)));
    let attempts = environment.failed_attempts;
    lines.extend(
        environment.retry_at.map(|at| ("Next try", format!("{} UTC ({attempts} failed so far)", date(Some(at))))),
    );
    let line = |(key, value): (&str, String)| format!("{key:<12}{value}\n");
    let lines: String = lines.into_iter().map(line).collect();
    format!("{lines}\n{}", conditions(&environment.conditions))
}

fn conditions(conditions: &[Condition]) -> String {
    let row = |condition: &Condition| {
        let (kind, reason) = (format!("{:?}", condition.kind), format!("{:?}", condition.reason));
        let since = date(Some(condition.last_transition_at));
        vec![kind, if condition.status { "yes" } else { "no" }.to_owned(), reason, since, condition.message.clone()]
    };
    table(&["CONDITION", "HOLDS", "REASON", "SINCE", "MESSAGE"], conditions.iter().map(row))
}

/// Returns the names alone: only Modal knows the values.
fn names(env: &BTreeMap<String, Option<Secret>>) -> String {
    if env.is_empty() { "-".to_owned() } else { env.keys().cloned().collect::<Vec<_>>().join(", ") }
}

/// Returns the options, with values unless they are secret.
fn options(airflow: &Airflow) -> String {
    let option = |(section, option, value): (&str, &str, &Option<Secret>)| match value {
        Some(value) => format!("{section}.{option}={}", value.expose()),
        None => format!("{section}.{option}"),
    };
    let options: Vec<_> = airflow.iter().map(option).collect();
    if options.is_empty() { "-".to_owned() } else { options.join(", ") }
}

fn target(target: Target) -> &'static str {
    match target {
        Target::Local => "local",
        Target::Modal => "modal",
    }
}

fn database(config: &Config) -> &'static str {
    match config.database.kind {
        DatabaseKind::Sqlite => "sqlite",
        DatabaseKind::Postgres => "postgres",
    }
}
