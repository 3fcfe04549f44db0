//! `backfills`: the flags that people know from Airflow.

use airflow_serverless_api::{backfill::ReprocessBehavior, moment};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};

use super::{Environment, Page, id, word};

#[derive(Subcommand)]
pub enum Backfills {
    /// Run a DAG for dates of its schedule that have passed
    Create(CreateBackfill),
    /// List the backfills, newest first
    List {
        #[command(flatten)]
        environment: Environment,
        /// Only those of this DAG
        #[arg(long, value_name = "ID")]
        dag_id: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show a backfill and its runs
    Show(Backfill),
    /// Keep the queued runs of a backfill from beginning
    Pause(Backfill),
    /// Let the queued runs of a backfill begin again
    Unpause(Backfill),
    /// End a backfill: its queued runs fail, those that have begun go on
    Cancel(Backfill),
}

#[derive(Args)]
pub struct CreateBackfill {
    #[command(flatten)]
    pub environment: Environment,
    /// Id of the DAG, as `dags list` shows it
    #[arg(long, value_name = "ID", value_parser = id)]
    pub dag_id: String,
    /// The first date, such as 2026-01-31 or 2026-01-31T06:00:00Z; UTC if it does not say
    #[arg(long, value_name = "DATE", value_parser = moment::parse)]
    pub from_date: DateTime<Utc>,
    /// The last date, included
    #[arg(long, value_name = "DATE", value_parser = moment::parse)]
    pub to_date: DateTime<Utc>,
    /// Parameters of the runs, a JSON object
    #[arg(long, value_name = "JSON")]
    pub dag_run_conf: Option<String>,
    /// Begin with the last date
    #[arg(long)]
    pub run_backwards: bool,
    /// How many of its runs may run at once
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(i32).range(1..))]
    pub max_active_runs: i32,
    /// Which dates that have a run are run again: none, failed or completed
    #[arg(long, value_name = "BEHAVIOR", default_value = "none", value_parser = word::<ReprocessBehavior>)]
    pub reprocess_behavior: ReprocessBehavior,
    /// Those that are run again run in the newest version of the DAG
    #[arg(long, overrides_with = "no_run_on_latest_version")]
    pub run_on_latest_version: bool,
    /// Those that are run again run in the version that they had
    #[arg(long)]
    pub no_run_on_latest_version: bool,
    /// Only show the runs that there would be
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// Follow the backfill to its end; the exit code is 0 only if all of its runs succeed
    #[arg(long)]
    pub wait: bool,
}

#[derive(Args)]
pub struct Backfill {
    #[command(flatten)]
    pub environment: Environment,
    /// Id of the backfill, as `backfills list` shows it
    #[arg(long, value_name = "N")]
    pub backfill_id: i64,
}
