//! `env`: what environments there are, and how they are.

use std::collections::BTreeMap;

use airflow_serverless_api::{
    Secret,
    config::{Config, DatabaseKind},
    environment::{Environment, Target},
};

use super::Outcome;
use crate::{
    cli::Env,
    daemon::Daemon,
    failure::ExitStatus,
    printer::{Printer, date, table},
};

pub async fn run(command: Env, printer: &Printer) -> Outcome {
    let daemon = Daemon::connect(printer).await?;
    match command {
        Env::List => printer.result(&daemon.list_environments().await?, |list| overview(&list.environments)),
        Env::Show(environment) => printer.result(&daemon.get_environment(&environment.name).await?, details),
    }
    Ok(ExitStatus::Success)
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
    let line = |(key, value): (&str, String)| format!("{key:<12}{value}\n");
    lines.into_iter().map(line).collect()
}

/// The names alone: nobody but Modal knows the values.
fn names(env: &BTreeMap<String, Secret>) -> String {
    if env.is_empty() { "-".to_owned() } else { env.keys().cloned().collect::<Vec<_>>().join(", ") }
}

fn target(target: Target) -> &'static str {
    match target {
        Target::Local => "local",
    }
}

fn database(config: &Config) -> &'static str {
    match config.database.kind {
        DatabaseKind::Sqlite => "sqlite",
        DatabaseKind::Postgres => "postgres",
    }
}
