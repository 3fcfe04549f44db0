//! `completions`: shell completions.

use clap::CommandFactory;
use serde::Serialize;

use super::Outcome;
use crate::{
    cli::{Cli, Completions},
    error::ExitStatus,
    printer::Printer,
};

#[derive(Serialize)]
struct Script {
    shell: String,
    script: String,
}

pub fn run(arguments: &Completions, printer: &Printer) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "airflow-serverless", &mut script);
    // The bash script spells the states of a hyphenated program name in two ways, of which only one is reached.
    let script = String::from_utf8_lossy(&script).replace("airflow__subcmd__serverless", "airflow__serverless");
    printer.data(&Script { shell: arguments.shell.to_string(), script }, |script| script.script.clone());
    Ok(ExitStatus::Success)
}
