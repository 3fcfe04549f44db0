//! The grammar of the command line.

use std::path::PathBuf;

use airflow_serverless_api::{environment::EnvironmentName, variables};
use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand};

/// Airflow without servers, on Modal.
#[derive(Parser)]
#[command(name = "airflow-serverless", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done · 1 refused, or what was waited for failed · 2 wrong usage · 3 the daemon \
                        cannot be reached or failed")]
pub struct Cli {
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Create an environment, or apply a changed configuration to it
    Create(Create),
    /// Environments
    #[command(subcommand)]
    Env(Env),
    /// DAG files and DAGs
    #[command(subcommand)]
    Dags(Dags),
    /// DAG runs
    #[command(subcommand)]
    Runs(Runs),
    /// Task instances
    #[command(subcommand)]
    Tasks(Tasks),
    /// The local daemon
    #[command(subcommand)]
    Daemon(Daemon),
}

#[derive(Args)]
pub struct Environment {
    /// Name of the environment
    #[arg(long = "env", value_name = "NAME", env = variables::ENVIRONMENT)]
    pub name: EnvironmentName,
}

#[derive(Args)]
pub struct Create {
    #[command(flatten)]
    pub environment: Environment,
    /// The configuration, a YAML file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Apply the configuration to an environment that exists
    #[arg(long)]
    pub update: bool,
}

#[derive(Subcommand)]
pub enum Env {
    /// List the environments
    List,
    /// Show an environment and its state
    Show(Environment),
}

#[derive(Args)]
pub struct DagFile {
    #[command(flatten)]
    pub environment: Environment,
    /// The DAG file
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Subcommand)]
pub enum Dags {
    /// Validate a new DAG file and upload it
    Create(DagFile),
    /// Validate a DAG file and overwrite the uploaded one
    Update(DagFile),
    /// List the DAG files, with the DAGs and import errors that the scheduler found in them
    List(Environment),
    /// Remove a DAG's file and mark the DAG inactive
    Delete {
        #[command(flatten)]
        environment: Environment,
        #[arg(long, value_name = "ID", value_parser = id)]
        dag_id: String,
        /// Remove the file even if it defines other DAGs too
        #[arg(long)]
        force: bool,
    },
    /// Start a run of a DAG
    Trigger(Trigger),
    /// Keep the scheduler from starting runs and tasks of a DAG
    Pause(Dag),
    /// Let the scheduler start runs and tasks of a DAG again
    Unpause(Dag),
}

#[derive(Args)]
pub struct Dag {
    #[command(flatten)]
    pub environment: Environment,
    #[arg(long, value_name = "ID", value_parser = id)]
    pub dag_id: String,
}

#[derive(Args)]
pub struct Trigger {
    #[command(flatten)]
    pub environment: Environment,
    #[arg(long, value_name = "ID", value_parser = id)]
    pub dag_id: String,
    /// Parameters of the run, a JSON object
    #[arg(long, value_name = "JSON")]
    pub conf: Option<String>,
    /// Id of the run; chosen by Airflow if absent
    #[arg(long, value_name = "RUN")]
    pub run_id: Option<String>,
    /// Logical date of the run, such as 2026-01-31T00:00:00Z
    #[arg(long, value_name = "DATE")]
    pub logical_date: Option<DateTime<Utc>>,
    /// Follow the run to its end; the exit code is 0 only if it succeeds
    #[arg(long)]
    pub wait: bool,
}

#[derive(Subcommand)]
pub enum Runs {
    /// List the runs, newest first
    List {
        #[command(flatten)]
        environment: Environment,
        #[arg(long, value_name = "ID")]
        dag_id: Option<String>,
        /// Show at most this many
        #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show a run and its tasks
    Show(Run),
}

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    pub environment: Environment,
    #[arg(long, value_name = "ID", value_parser = id)]
    pub dag_id: String,
    #[arg(long, value_name = "RUN", value_parser = id)]
    pub run_id: String,
}

#[derive(Subcommand)]
pub enum Tasks {
    /// Print the log of a task
    Logs {
        #[command(flatten)]
        run: Run,
        #[arg(long, value_name = "ID", value_parser = id)]
        task_id: String,
        /// The try; the last one if absent
        #[arg(long = "try", value_name = "N")]
        try_number: Option<i32>,
        /// Index of a mapped task
        #[arg(long, value_name = "N")]
        map_index: Option<i32>,
    },
}

#[derive(Subcommand)]
pub enum Daemon {
    /// Start the daemon in the background, unless it runs
    Start,
    /// Stop the daemon; what it keeps is there when it starts again
    Stop,
    /// Tell whether the daemon runs, and where
    Status,
}

/// An id that becomes a part of a request's path, where these would be steps to another place.
fn id(text: &str) -> Result<String, String> {
    if matches!(text, "" | "." | "..") { Err(format!("{text:?} is no id")) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        super::Cli::command().debug_assert();
    }
}
