//! `create`: creates an environment from a configuration.

use airflow_serverless_api::{
    config::{Config, DatabaseKind, PreviousConfig},
    environment::EnvironmentChange,
};

use super::Outcome;
use crate::{cli::Create, config, error::ExitStatus, follow, printer::Printer, session};

pub async fn create(arguments: Create, printer: &Printer) -> Outcome {
    let name = arguments.environment.name;
    let before = if arguments.update { PreviousConfig::Unknown } else { PreviousConfig::Nothing };
    let config = config::read(&arguments.config, before)?;
    let daemon = session::connect(printer).await?;
    let change = if arguments.update {
        daemon.update_environment(&name, config).await?
    } else {
        daemon.create_environment(name.clone(), config).await?
    };
    let Some(operation) = change.operation else {
        printer.result(&change, |change| {
            let secrets = uncompared(&change.environment.config);
            format!("environment {name} exists and is as configured; nothing was changed{secrets}")
        });
        return Ok(ExitStatus::Success);
    };
    let operation = follow::operation(&daemon, operation, printer).await?;
    let (status, reason) = (follow::status(&operation), follow::shortfall(&operation));
    let change = EnvironmentChange { environment: daemon.get_environment(&name).await?, operation: Some(operation) };
    printer.result(&change, |_| match reason {
        None => format!("environment {name} is ready"),
        Some(reason) => format!("environment {name} does not have the requested configuration: {reason}"),
    });
    Ok(status)
}

/// Names the values that may have changed unnoticed, as only Modal knows the old ones.
fn uncompared(config: &Config) -> String {
    let is_postgres = config.database.kind == DatabaseKind::Postgres;
    let has_options = config.secret_variables().any(|variable| variable.location.starts_with("airflow."));
    let secrets = [
        (is_postgres, "the connection string"),
        (!config.env.is_empty(), "values of `env`"),
        (has_options, "secrets of `airflow`"),
    ];
    let names: Vec<_> = secrets.into_iter().filter(|(is_there, _)| *is_there).map(|(_, name)| name).collect();
    match names.as_slice() {
        [] => String::new(),
        ["the connection string"] => " (the connection string is not compared: `--update` sets it)".to_owned(),
        names => format!(" ({} are not compared: `--update` sets them)", names.join(" and ")),
    }
}
