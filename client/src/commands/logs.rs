//! `logs`: the output of an environment's containers.

use airflow_serverless_api::log::{ContainerLine, ReadContainerLogs};
use console::style;

use super::Outcome;
use crate::{cli::ContainerLogs, error::ExitStatus, printer::Printer, session};

pub async fn logs(arguments: ContainerLogs, printer: &Printer) -> Outcome {
    let daemon = session::connect(printer).await?;
    let (environment, query) = (arguments.environment.name, ReadContainerLogs { tail: Some(arguments.tail) });
    if arguments.follow {
        daemon.follow_container_logs(&environment, query, |found| printer.data_line(found, line)).await?;
    } else {
        let logs = daemon.get_container_logs(&environment, query).await?;
        printer.result(&logs, |logs| logs.lines.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
    Ok(ExitStatus::Success)
}

fn line(line: &ContainerLine) -> String {
    let function = line.function.as_deref().unwrap_or("modal");
    let from = style(format!("{} {function} |", line.timestamp.format("%Y-%m-%dT%H:%M:%S%.3fZ"))).dim();
    // Prefix each line of a traceback, as the output of several containers may interleave.
    line.message.lines().map(|text| format!("{from} {text}")).collect::<Vec<_>>().join("\n")
}
