//! Grammar of `backfills`, with the flags of Airflow's CLI.

use airflow_serverless_api::{backfill::ReprocessBehavior, moment};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};

use super::{Environment, Page, id, word};

#[derive(Subcommand)]
pub enum Backfills {
    /// Run a DAG for past dates of its schedule
    Create(CreateBackfill),
    /// List backfills, newest first
    List {
        #[command(flatten)]
        environment: Environment,
        /// Filter by DAG id
        #[arg(long, value_name = "ID")]
        dag_id: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show a backfill and its runs
    Show(Backfill),
    /// Pause a backfill: start no more of its queued runs
    Pause(Backfill),
    /// Unpause a backfill
    Unpause(Backfill),
    /// Cancel a backfill
    ///
    /// Its queued runs fail; running ones continue.
    Cancel(Backfill),
}

#[derive(Args)]
pub struct CreateBackfill {
    #[command(flatten)]
    pub environment: Environment,
    /// DAG id, as in `dags list`
    #[arg(long, value_name = "ID", value_parser = id)]
    pub dag_id: String,
    /// First date, such as 2026-01-31 or 2026-01-31T06:00:00Z; UTC without a time zone
    #[arg(long, value_name = "DATE", value_parser = moment::parse)]
    pub from_date: DateTime<Utc>,
    /// Last date, inclusive
    #[arg(long, value_name = "DATE", value_parser = moment::parse)]
    pub to_date: DateTime<Utc>,
    /// Params of the runs, a JSON object
    #[arg(long, value_name = "JSON")]
    pub dag_run_conf: Option<String>,
    /// Start with the last date
    #[arg(long)]
    pub run_backwards: bool,
    /// Maximum number of its runs at the same time
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(i32).range(1..))]
    pub max_active_runs: i32,
    /// Dates with a run to run again: none, failed or completed
    #[arg(long, value_name = "BEHAVIOR", default_value = "none", value_parser = word::<ReprocessBehavior>)]
    pub reprocess_behavior: ReprocessBehavior,
    /// Rerun with the newest version of the DAG
    #[arg(long, overrides_with = "no_run_on_latest_version")]
    pub run_on_latest_version: bool,
    /// Rerun with the version of the first run
    #[arg(long)]
    pub no_run_on_latest_version: bool,
    /// Show the runs that would be created, and create none
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// Wait until the backfill has ended; exit with 1 if a run failed
    #[arg(long)]
    pub wait: bool,
}

#[derive(Args)]
pub struct Backfill {
    #[command(flatten)]
    pub environment: Environment,
    /// Backfill id, as in `backfills list`
    #[arg(long, value_name = "N")]
    pub backfill_id: i64,
}
