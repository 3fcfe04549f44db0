//! `env`: what environments there are, and how they are.

use std::collections::BTreeMap;

use airflow_serverless_api::{
    Secret,
    config::{Config, DatabaseKind},
    environment::{Condition, Environment, Target},
};

use super::Outcome;
use crate::{
    cli::{self, DeleteEnvironment, Env},
    daemon::Daemon,
    failure::{ExitStatus, Failure},
    follow,
    printer::{Printer, date, table},
};

pub async fn run(command: Env, printer: &Printer) -> Outcome {
    let daemon = Daemon::connect(printer).await?;
    match command {
        Env::List => printer.result(&daemon.list_environments().await?, |list| overview(&list.environments)),
        Env::Delete(arguments) => return delete(&daemon, arguments, printer).await,
        Env::Show(environment) => printer.result(&daemon.get_environment(&environment.name).await?, details),
    }
    Ok(ExitStatus::Success)
}

pub async fn tick(environment: cli::Environment, printer: &Printer) -> Outcome {
    Daemon::connect(printer).await?.tick_environment(&environment.name).await?;
    printer.result(&serde_json::json!({"environment": environment.name}), |_| "the scheduler has looked".to_owned());
    Ok(ExitStatus::Success)
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
        (Some(reason), _) => format!("environment {name} is not gone as asked for: {reason}"),
        (None, true) => format!("environment {name} and its data are gone"),
        (None, false) => format!(
            "environment {name} is gone, with its watches; its data stay on the Volume {}, and a new `create` finds \
             them again",
            environment.names.volume
        ),
    });
    Ok(status)
}

/// Asks once, and twice if data would be lost.
fn is_meant(environment: &Environment, purge: bool, printer: &Printer) -> Result<bool, Failure> {
    let name = &environment.name;
    let nobody =
        || Failure::input("there is no terminal to ask whether you mean it", Vec::new(), Some("`--yes` means it"));
    let answer = printer.ask(&format!("Delete environment {name}? [y/N] ")).ok_or_else(nobody)?;
    if !matches!(answer.to_lowercase().as_str(), "y" | "yes") {
        return Ok(false);
    }
    if !purge {
        return Ok(true);
    }
    let names = &environment.names;
    printer.note(&format!(
        "This removes the Volume {} with DAG files, metadata, XComs and logs, the Dict {} and the Secret {} for ever.",
        names.volume, names.dict, names.secret
    ));
    let answer = printer.ask("Type the name of the environment to go on: ").ok_or_else(nobody)?;
    Ok(answer == name.as_str())
}

fn overview(environments: &[Environment]) -> String {
    if environments.is_empty() {
        return "no environments; `airflow-serverless create --env NAME --config FILE` makes one".to_owned();
    }
    let row = |environment: &Environment| {
        vec![
            environment.name.to_string(),
            environment.state.to_string(),
            target(environment.target).to_owned(),
            database(&environment.config).to_owned(),
            date(Some(environment.created_at)),
        ]
    };
    table(&["NAME", "STATE", "TARGET", "DATABASE", "CREATED"], environments.iter().map(row))
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
    table(&["CONDITION", "HOLDS", "REASON", "SINCE (UTC)", "MESSAGE"], conditions.iter().map(row))
}

/// The names alone: nobody but Modal knows the values.
fn names(env: &BTreeMap<String, Option<Secret>>) -> String {
    if env.is_empty() { "-".to_owned() } else { env.keys().cloned().collect::<Vec<_>>().join(", ") }
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
