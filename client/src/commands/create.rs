//! `create`: an environment from a configuration.

use airflow_serverless_api::{config::DatabaseKind, environment::EnvironmentChange, operation::OperationState};

use super::Outcome;
use crate::{
    cli::Create,
    config,
    daemon::Daemon,
    failure::{ExitStatus, Failure},
    follow,
    printer::Printer,
};

pub async fn create(arguments: Create, printer: &Printer) -> Outcome {
    let name = arguments.environment.name;
    let config = config::read(&arguments.config)?;
    let daemon = Daemon::connect(printer).await?;
    let change = if arguments.update {
        daemon.update_environment(&name, config).await?
    } else {
        daemon.create_environment(name.clone(), config).await?
    };
    let Some(operation) = change.operation else {
        let secrets = match change.environment.config.database.kind {
            DatabaseKind::Sqlite => "",
            // Nobody but Modal knows the old one.
            DatabaseKind::Postgres => " (`--update` sets a new connection string)",
        };
        printer.result(&change, |_| {
            format!("environment {name} exists and is as configured; nothing was changed{secrets}")
        });
        return Ok(ExitStatus::Success);
    };
    let operation = follow::operation(&daemon, operation, printer).await?;
    if let (OperationState::Failed, Some(reason)) = (operation.state, &operation.error) {
        return Err(Failure::Unexpected {
            message: format!("environment {name} could not be brought about: {reason}"),
            hint: Some(format!("the daemon tries again by itself; `airflow-serverless env show --env {name}` tells")),
        });
    }
    let change = EnvironmentChange { environment: daemon.get_environment(&name).await?, operation: Some(operation) };
    printer.result(&change, |_| format!("environment {name} is ready"));
    Ok(ExitStatus::Success)
}
