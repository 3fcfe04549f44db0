//! The grammar of the command line.

mod admin;
mod auth;
mod backfills;
mod daemon;
#[cfg(test)]
mod reference;
mod watch;
mod work;

use std::path::PathBuf;

use airflow_serverless_api::{
    environment::EnvironmentName,
    moment,
    run::{RunMark, RunState},
    task::{TaskMark, TaskState},
    variables,
};
use chrono::{DateTime, Utc};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable};
use serde::de::DeserializeOwned;

pub use admin::{AddConnection, Connections, List, Page, Pools, Variables};
pub use auth::{Auth, Login};
pub use backfills::{Backfill, Backfills, CreateBackfill};
pub use daemon::{Completions, Daemon, Logs, Man};
pub use watch::{AddWatch, Watch};
pub use work::{ContainerLogs, DeleteEnvironment, EstimateCost, Events, Operations, RollBack};

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

impl Cli {
    /// The command line of this process.
    pub fn read() -> Result<Self, clap::Error> {
        let mut command = Self::command();
        if std::env::var_os(variables::ENVIRONMENT).is_some_and(|name| name.is_empty()) {
            command = without_variable(command);
        }
        Self::from_arg_matches(&command.try_get_matches()?)
    }
}

/// A variable that is set to nothing is taken for one that is not set, as shells have no other way in a line of their own.
fn without_variable(command: clap::Command) -> clap::Command {
    let is_it = |argument: &clap::Arg| argument.get_env().is_some_and(|name| name == variables::ENVIRONMENT);
    let without = |argument: clap::Arg| if is_it(&argument) { argument.env(Resettable::Reset) } else { argument };
    command.mut_args(without).mut_subcommands(without_variable)
}

#[derive(Subcommand)]
pub enum Command {
    /// Create an environment, or apply a changed configuration to it
    ///
    /// For example: `airflow-serverless create --env dev --config config.yaml`, and with `--update` after the file was edited.
    #[command(after_long_help = include_str!("../../examples/config.yaml"))]
    Create(Create),
    /// Credentials for Modal's cloud
    #[command(subcommand)]
    Auth(Auth),
    /// Environments: one Airflow each
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
    /// Runs of a DAG for dates that have passed
    #[command(subcommand)]
    Backfills(Backfills),
    /// Airflow's variables
    #[command(subcommand)]
    Variables(Variables),
    /// Airflow's connections
    #[command(subcommand)]
    Connections(Connections),
    /// Airflow's pools
    #[command(subcommand)]
    Pools(Pools),
    /// Run Airflow's own user interface until Ctrl-C is pressed
    Ui(Ui),
    /// Have the scheduler look for what is due, now
    Tick(Environment),
    /// Estimate what an environment cost in the last days, or would have cost on Modal
    Cost(EstimateCost),
    /// What the daemon does for environments, step by step
    #[command(subcommand)]
    Operations(Operations),
    /// Print what happens, as it happens
    Events(Events),
    /// Folders whose files are uploaded as they are saved
    #[command(subcommand)]
    Watch(Watch),
    /// Print what the scheduler and the containers of tasks print; the log of a task is `tasks logs`, the daemon's `daemon logs`
    Logs(ContainerLogs),
    /// The local daemon
    #[command(subcommand)]
    Daemon(Daemon),
    /// Look whether all that is needed is there and works, and tell what to do about the rest
    Doctor,
    /// Print the completions of a shell
    ///
    /// For bash: `source <(airflow-serverless completions bash)` in ~/.bashrc; for zsh, write them to a file `_airflow-serverless`
    /// in a folder of $fpath; for fish, to ~/.config/fish/completions/airflow-serverless.fish.
    #[command(verbatim_doc_comment)]
    Completions(Completions),
    /// Write the man pages
    #[command(hide = true)]
    Man(Man),
}

#[derive(Args)]
pub struct Environment {
    /// Name of the environment: 1 to 32 of a-z, 0-9 and `-`
    #[arg(long = "env", value_name = "NAME", env = variables::ENVIRONMENT)]
    pub name: EnvironmentName,
}

#[derive(Args)]
pub struct Ui {
    #[command(flatten)]
    pub environment: Environment,
    /// Only print the address, also on a terminal
    #[arg(long)]
    pub no_browser: bool,
}

#[derive(Args)]
pub struct Create {
    #[command(flatten)]
    pub environment: Environment,
    /// The configuration, a YAML file; the smallest is `database: {type: sqlite}`
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
    /// Take back an environment that is on Modal, but not in the daemon's registry
    ///
    /// Its DAGs, metadata, XComs, logs and secrets stay as they are. Its watches are not known: add them again.
    Adopt(Environment),
    /// List the backups of an environment's SQLite database
    Backups(Environment),
    /// Restore an environment's SQLite database from a backup
    ///
    /// Runs, variables, connections and pools become what they were then, and running tasks are stopped. DAG files, logs and
    /// XComs stay.
    Rollback(RollBack),
    /// Take an environment down: its watches end, its data stay unless they are purged
    Delete(DeleteEnvironment),
}

#[derive(Args)]
pub struct DagFile {
    #[command(flatten)]
    pub environment: Environment,
    /// The DAG file, which is uploaded under its name alone (`watch add` uploads folders); one in a folder called `plugins` is
    /// a plugin of Airflow's
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
    /// Show a DAG and its tasks
    Show(Dag),
    /// Show what does not import, with its stack traces
    Errors(Environment),
    /// Remove a DAG's file and mark the DAG inactive
    Delete(Delete),
    /// Start a run of a DAG
    Trigger(Trigger),
    /// Keep the scheduler from starting runs and tasks of a DAG
    Pause(Dag),
    /// Let the scheduler start runs and tasks of a DAG again
    Unpause(Dag),
}

#[derive(Args)]
pub struct Delete {
    #[command(flatten)]
    pub environment: Environment,
    /// The DAG whose file is removed; this or --file is needed
    #[arg(long, value_name = "ID", value_parser = id, required_unless_present = "file")]
    pub dag_id: Option<String>,
    /// The file itself, as `dags list` and `dags errors` name it, or a plugin as `plugins/NAME`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["dag_id", "force"])]
    pub file: Option<String>,
    /// Remove the file even if it defines other DAGs too
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
pub struct Dag {
    #[command(flatten)]
    pub environment: Environment,
    /// Id of the DAG, as `dags list` shows it
    #[arg(long, value_name = "ID", value_parser = id)]
    pub dag_id: String,
}

#[derive(Args)]
pub struct Trigger {
    #[command(flatten)]
    pub environment: Environment,
    /// Id of the DAG, as `dags list` shows it
    #[arg(long, value_name = "ID", value_parser = id)]
    pub dag_id: String,
    /// Parameters of the run, a JSON object
    #[arg(long, value_name = "JSON")]
    pub conf: Option<String>,
    /// Id of the run; chosen by Airflow if absent
    #[arg(long, value_name = "RUN")]
    pub run_id: Option<String>,
    /// Logical date of the run, such as 2026-01-31 or 2026-01-31T06:00:00Z; UTC if it does not say
    #[arg(long, value_name = "DATE", value_parser = moment::parse)]
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
        /// Only those of this DAG
        #[arg(long, value_name = "ID")]
        dag_id: Option<String>,
        /// Only those in this state: queued, running, success or failed
        #[arg(long, value_parser = word::<RunState>)]
        state: Option<RunState>,
        /// Show at most this many
        #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Leave out the first ones
        #[arg(long, default_value_t = 0)]
        offset: u32,
    },
    /// Show a run and its tasks
    Show(Run),
    /// Let all tasks of a run run again; those that run are stopped first
    Clear {
        #[command(flatten)]
        run: Run,
        /// Only tasks that are failed or upstream_failed
        #[arg(short = 'f', long)]
        only_failed: bool,
    },
    /// Give a run another state: tasks that run are stopped with that state, others that have not ended are skipped
    Mark {
        #[command(flatten)]
        run: Run,
        /// success, failed, or queued: then tasks stay as they are, and the scheduler goes on with the run
        #[arg(long, value_parser = word::<RunMark>)]
        state: RunMark,
    },
}

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    pub environment: Environment,
    /// Id of the DAG, as `dags list` shows it
    #[arg(long, value_name = "ID", value_parser = id)]
    pub dag_id: String,
    /// Id of the run, as `runs list` shows it
    #[arg(long, value_name = "RUN", value_parser = id)]
    pub run_id: String,
}

#[derive(Subcommand)]
pub enum Tasks {
    /// List the tasks of a run, in the order in which they started
    List {
        #[command(flatten)]
        run: Run,
        /// Only those in this state, such as failed; none: not scheduled yet
        #[arg(long, value_parser = word::<TaskState>)]
        state: Option<TaskState>,
        #[command(flatten)]
        page: Page,
    },
    /// Print the log of a task
    Logs {
        #[command(flatten)]
        task: Task,
        /// Go on printing lines as they come, until the task has ended
        #[arg(short, long)]
        follow: bool,
        /// The try; the last one if absent
        #[arg(long = "try", value_name = "N")]
        try_number: Option<i32>,
    },
    /// Let a failed task run again, with the tasks that failed because of it
    Retry(Task),
    /// Let a task run again; one that runs is stopped first
    Clear {
        #[command(flatten)]
        task: Task,
        #[command(flatten)]
        relatives: Relatives,
        /// Of all these, only tasks that are failed or upstream_failed
        #[arg(short = 'f', long)]
        only_failed: bool,
    },
    /// List questions of human-in-the-loop tasks that await an answer
    Questions {
        #[command(flatten)]
        environment: Environment,
        /// Only those of this DAG
        #[arg(long, value_name = "ID", value_parser = id)]
        dag_id: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Answer the question of a human-in-the-loop task
    Answer {
        #[command(flatten)]
        task: Task,
        /// The option to choose; several if the question takes them
        #[arg(long = "option", value_name = "OPTION", required = true, allow_hyphen_values = true)]
        options: Vec<String>,
        /// Values of the question's params, as a JSON object
        #[arg(long, value_name = "JSON")]
        params: Option<String>,
    },
    /// Give a task another state; tasks that failed because of it run again
    Mark {
        #[command(flatten)]
        task: Task,
        /// success, failed or skipped
        #[arg(long, value_parser = word::<TaskMark>)]
        state: TaskMark,
        #[command(flatten)]
        relatives: Relatives,
    },
}

#[derive(Args)]
pub struct Task {
    #[command(flatten)]
    pub run: Run,
    /// Id of the task, as `tasks list` shows it
    #[arg(long, value_name = "ID", value_parser = id)]
    pub task_id: String,
    /// Index of a mapped task; if absent all of them, but `tasks logs` needs it
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub map_index: Option<i32>,
}

impl Task {
    /// The parts of its path.
    pub fn path(&self) -> (&str, &str, &str) {
        (&self.run.dag_id, &self.run.run_id, &self.task_id)
    }
}

#[derive(Args)]
pub struct Relatives {
    /// The tasks that come before it, too
    #[arg(short, long)]
    pub upstream: bool,
    /// The tasks that come after it, too
    #[arg(short, long)]
    pub downstream: bool,
}

/// An id that becomes a part of a request's path, where these would be steps to another place.
fn id(text: &str) -> Result<String, String> {
    match text {
        "" => Err("the id is empty".to_owned()),
        "." | ".." => Err(format!("{text:?} is not an id that a URL can carry")),
        _ => Ok(text.to_owned()),
    }
}

/// One of the words of an enumeration of the API.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    // The value itself is named already by who prints this.
    let without_value = |why: String| match why.split_once("`, expected ") {
        Some((_, known)) => format!("expected {known}"),
        None => why,
    };
    serde_json::from_value(text.into()).map_err(|error| without_value(error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        super::Cli::command().debug_assert();
    }
}
