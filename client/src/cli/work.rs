//! Grammar of commands about an environment as a whole: `operations`, `events`, `cost`.

use airflow_serverless_api::{environment::EnvironmentName, operation::OperationState, variables};
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::{Environment, Page, word};

#[derive(Args)]
pub struct DeleteEnvironment {
    #[command(flatten)]
    pub environment: Environment,
    /// Also delete the Volume, Dict and Secret: DAG files, metadata, XComs, logs and keys are lost
    #[arg(long)]
    pub purge: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Args)]
pub struct RollBack {
    #[command(flatten)]
    pub environment: Environment,
    /// Backup to restore, as in `env backups` [default: the newest one that no rollback has replaced]
    #[arg(long, value_name = "NAME")]
    pub backup: Option<String>,
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Subcommand)]
pub enum Operations {
    /// List operations, newest first
    ///
    /// Operations are kept for 7 days after they ended.
    List {
        /// Filter by environment
        #[arg(long = "env", value_name = "NAME", env = variables::ENVIRONMENT)]
        environment: Option<EnvironmentName>,
        /// Filter by state: running, succeeded, failed or cancelled
        #[arg(long, value_parser = word::<OperationState>)]
        state: Option<OperationState>,
        #[command(flatten)]
        page: Page,
    },
    /// Show an operation and its steps
    Show {
        /// Operation id, as in `operations list`
        id: Uuid,
    },
    /// Wait until an operation has ended
    Wait {
        /// Operation id, as in `operations list`
        id: Uuid,
    },
    /// Cancel the creation or update of an environment
    ///
    /// Finished steps are not undone.
    Cancel {
        /// Operation id, as in `operations list`
        id: Uuid,
    },
}

#[derive(Args)]
pub struct Events {
    /// Filter by environment
    #[arg(long = "env", value_name = "NAME", env = variables::ENVIRONMENT)]
    pub environment: Option<EnvironmentName>,
    /// Start after the event with this id; 0 starts with the oldest
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..))]
    pub after: Option<i64>,
    /// Print past events and exit
    #[arg(long, requires = "after")]
    pub no_follow: bool,
}

#[derive(Args)]
pub struct ContainerLogs {
    #[command(flatten)]
    pub environment: Environment,
    /// Number of past lines to start with
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub tail: u32,
    /// Follow the output until interrupted
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Args)]
pub struct EstimateCost {
    #[command(flatten)]
    pub environment: Environment,
    /// Number of past days
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=90))]
    pub days: u32,
}
