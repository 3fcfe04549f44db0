//! Grammar of what the daemon does for environments as a whole: `operations`, `events`, `cost`.

use airflow_serverless_api::{environment::EnvironmentName, operation::OperationState, variables};
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::{Environment, Page, word};

#[derive(Args)]
pub struct DeleteEnvironment {
    #[command(flatten)]
    pub environment: Environment,
    /// Remove the Volume, the Dict and the Secret, too: DAG files, metadata, XComs, logs and keys are lost
    #[arg(long)]
    pub purge: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Args)]
pub struct RollBack {
    #[command(flatten)]
    pub environment: Environment,
    /// The backup to restore, as `env backups` names it; if absent, the newest one that no roll-back has replaced
    #[arg(long, value_name = "NAME")]
    pub backup: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Subcommand)]
pub enum Operations {
    /// List operations, newest first; those that have ended are kept for 7 days
    List {
        /// Only those on this environment
        #[arg(long = "env", value_name = "NAME", env = variables::ENVIRONMENT)]
        environment: Option<EnvironmentName>,
        /// Only those that are `running`, `succeeded`, `failed` or `cancelled`
        #[arg(long, value_parser = word::<OperationState>)]
        state: Option<OperationState>,
        #[command(flatten)]
        page: Page,
    },
    /// Show an operation and its steps
    Show {
        /// As `operations list` shows it
        id: Uuid,
    },
    /// Follow an operation to its end
    Wait {
        /// As `operations list` shows it
        id: Uuid,
    },
    /// End the creation or change of an environment; what it has done so far stays
    Cancel {
        /// As `operations list` shows it
        id: Uuid,
    },
}

#[derive(Args)]
pub struct Events {
    /// Only those of this environment
    #[arg(long = "env", value_name = "NAME", env = variables::ENVIRONMENT)]
    pub environment: Option<EnvironmentName>,
    /// Begin behind the event with this id; 0 begins with the oldest that is kept
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..))]
    pub after: Option<i64>,
    /// Print what has happened until now, and end
    #[arg(long, requires = "after")]
    pub no_follow: bool,
}

#[derive(Args)]
pub struct ContainerLogs {
    #[command(flatten)]
    pub environment: Environment,
    /// Begin with this many of the last lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub tail: u32,
    /// Go on printing lines as they come, until interrupted
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Args)]
pub struct EstimateCost {
    #[command(flatten)]
    pub environment: Environment,
    /// How many days back
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=90))]
    pub days: u32,
}
