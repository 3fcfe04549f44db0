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

/// Run Airflow without servers, on Modal
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
    /// Parses the command line of this process.
    pub fn read() -> Result<Self, clap::Error> {
        let mut command = Self::command();
        if std::env::var_os(variables::ENVIRONMENT).is_some_and(|name| name.is_empty()) {
            command = without_variable(command);
        }
        Self::from_arg_matches(&command.try_get_matches()?)
    }
}

/// Treats an empty variable as unset: `NAME= command` is the shell's way to unset it for one command.
fn without_variable(command: clap::Command) -> clap::Command {
    let is_it = |argument: &clap::Arg| argument.get_env().is_some_and(|name| name == variables::ENVIRONMENT);
    let without = |argument: clap::Arg| if is_it(&argument) { argument.env(Resettable::Reset) } else { argument };
    command.mut_args(without).mut_subcommands(without_variable)
}

#[derive(Subcommand)]
pub enum Command {
    /// Create an environment, or update its configuration
    ///
    /// For example: `airflow-serverless create --env dev --config config.yaml`. After a change of the file, add `--update`.
    #[command(after_long_help = include_str!("../../examples/config.yaml"))]
    Create(Create),
    /// Manage the credentials for Modal's cloud
    #[command(subcommand)]
    Auth(Auth),
    /// Manage environments
    #[command(subcommand)]
    Env(Env),
    /// Manage DAG files and DAGs
    #[command(subcommand)]
    Dags(Dags),
    /// Manage DAG runs
    #[command(subcommand)]
    Runs(Runs),
    /// Manage task instances
    #[command(subcommand)]
    Tasks(Tasks),
    /// Manage backfills: runs of a DAG for past dates
    #[command(subcommand)]
    Backfills(Backfills),
    /// Manage Airflow variables
    #[command(subcommand)]
    Variables(Variables),
    /// Manage Airflow connections
    #[command(subcommand)]
    Connections(Connections),
    /// Manage Airflow pools
    #[command(subcommand)]
    Pools(Pools),
    /// Start the Airflow UI and stop it on Ctrl-C
    Ui(Ui),
    /// Run a scheduler tick now
    Tick(Environment),
    /// Estimate what an environment has cost
    ///
    /// For Local Modal: what it would have cost in Modal's cloud.
    Cost(EstimateCost),
    /// Manage the daemon's work on environments
    #[command(subcommand)]
    Operations(Operations),
    /// Stream events
    Events(Events),
    /// Manage watched folders, whose files are uploaded on save
    #[command(subcommand)]
    Watch(Watch),
    /// Stream the output of scheduler and workers
    ///
    /// See also `tasks logs` for the log of a task and `daemon logs` for the daemon's.
    Logs(ContainerLogs),
    /// Manage the local daemon
    #[command(subcommand)]
    Daemon(Daemon),
    /// Check the installation and suggest fixes
    Doctor,
    /// Print shell completions
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
    /// Print the URL and do not open a browser
    #[arg(long)]
    pub no_browser: bool,
}

#[derive(Args)]
pub struct Create {
    #[command(flatten)]
    pub environment: Environment,
    /// Configuration file in YAML; the smallest is `database: {type: sqlite}`
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Update an environment that exists
    #[arg(long)]
    pub update: bool,
}

#[derive(Subcommand)]
pub enum Env {
    /// List environments
    List,
    /// Show an environment and its state
    Show(Environment),
    /// Register an environment that is deployed but not registered
    ///
    /// Its DAGs, metadata, XComs, logs and secrets stay as they are. Its watches are lost: add them again.
    Adopt(Environment),
    /// List the backups of an environment's SQLite database
    Backups(Environment),
    /// Restore an environment's SQLite database from a backup
    ///
    /// Runs, variables, connections and pools become what they were at the time of the backup. Running tasks are stopped.
    /// DAG files, logs and XComs stay.
    Rollback(RollBack),
    /// Delete an environment; its data stay without --purge
    ///
    /// Stops its functions and removes its watches.
    Delete(DeleteEnvironment),
}

#[derive(Args)]
pub struct DagFile {
    #[command(flatten)]
    pub environment: Environment,
    /// DAG file, stored under its base name; a file in a folder `plugins` becomes a plugin. To upload a folder, use `watch
    /// add`
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Subcommand)]
pub enum Dags {
    /// Validate a new DAG file and upload it
    Create(DagFile),
    /// Validate a DAG file and overwrite the uploaded one
    Update(DagFile),
    /// List DAG files with their DAGs and import errors
    List(Environment),
    /// Show a DAG and its tasks
    Show(Dag),
    /// Show import errors with their stack traces
    Errors(Environment),
    /// Delete a DAG's file and deactivate the DAG
    Delete(Delete),
    /// Trigger a run of a DAG
    Trigger(Trigger),
    /// Pause a DAG: start no more of its runs and tasks
    Pause(Dag),
    /// Unpause a DAG
    Unpause(Dag),
}

#[derive(Args)]
pub struct Delete {
    #[command(flatten)]
    pub environment: Environment,
    /// Delete the file of this DAG; this or --file is required
    #[arg(long, value_name = "ID", value_parser = id, required_unless_present = "file")]
    pub dag_id: Option<String>,
    /// Delete this file, named as in `dags list`, or a plugin: `plugins/NAME`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["dag_id", "force"])]
    pub file: Option<String>,
    /// Delete the file even if it also defines other DAGs
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
pub struct Dag {
    #[command(flatten)]
    pub environment: Environment,
    /// DAG id, as in `dags list`
    #[arg(long, value_name = "ID", value_parser = id)]
    pub dag_id: String,
}

#[derive(Args)]
pub struct Trigger {
    #[command(flatten)]
    pub environment: Environment,
    /// DAG id, as in `dags list`
    #[arg(long, value_name = "ID", value_parser = id)]
    pub dag_id: String,
    /// Params of the run, a JSON object
    #[arg(long, value_name = "JSON")]
    pub conf: Option<String>,
    /// Run id [default: chosen by Airflow]
    #[arg(long, value_name = "RUN")]
    pub run_id: Option<String>,
    /// Logical date, such as 2026-01-31 or 2026-01-31T06:00:00Z; UTC without a time zone
    #[arg(long, value_name = "DATE", value_parser = moment::parse)]
    pub logical_date: Option<DateTime<Utc>>,
    /// Wait until the run has ended; exit with 1 if it failed
    #[arg(long)]
    pub wait: bool,
}

#[derive(Subcommand)]
pub enum Runs {
    /// List runs, newest first
    List {
        #[command(flatten)]
        environment: Environment,
        /// Filter by DAG id
        #[arg(long, value_name = "ID")]
        dag_id: Option<String>,
        /// Filter by state: queued, running, success or failed
        #[arg(long, value_parser = word::<RunState>)]
        state: Option<RunState>,
        /// Maximum number of rows
        #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Number of rows to skip
        #[arg(long, default_value_t = 0)]
        offset: u32,
    },
    /// Show a run and its tasks
    Show(Run),
    /// Clear the tasks of a run so that they rerun
    ///
    /// Running tasks are stopped first.
    Clear {
        #[command(flatten)]
        run: Run,
        /// Clear only tasks in the states failed and upstream_failed
        #[arg(short = 'f', long)]
        only_failed: bool,
    },
    /// Set the state of a run
    ///
    /// Running tasks are stopped and get the same state. Other unfinished tasks are skipped.
    Mark {
        #[command(flatten)]
        run: Run,
        /// success, failed or queued; with queued, tasks keep their states and the scheduler resumes the run
        #[arg(long, value_parser = word::<RunMark>)]
        state: RunMark,
    },
}

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    pub environment: Environment,
    /// DAG id, as in `dags list`
    #[arg(long, value_name = "ID", value_parser = id)]
    pub dag_id: String,
    /// Run id, as in `runs list`
    #[arg(long, value_name = "RUN", value_parser = id)]
    pub run_id: String,
}

#[derive(Subcommand)]
pub enum Tasks {
    /// List the tasks of a run in the order in which they started
    List {
        #[command(flatten)]
        run: Run,
        /// Filter by state, such as failed; none means not scheduled yet
        #[arg(long, value_parser = word::<TaskState>)]
        state: Option<TaskState>,
        #[command(flatten)]
        page: Page,
    },
    /// Print the log of a task
    Logs {
        #[command(flatten)]
        task: Task,
        /// Follow the log until the task has ended
        #[arg(short, long)]
        follow: bool,
        /// Try number [default: the last one]
        #[arg(long = "try", value_name = "N")]
        try_number: Option<i32>,
    },
    /// Retry a failed task and the tasks that failed because of it
    Retry(Task),
    /// Clear a task so that it reruns
    ///
    /// A running task is stopped first.
    Clear {
        #[command(flatten)]
        task: Task,
        #[command(flatten)]
        relatives: Relatives,
        /// Clear only tasks in the states failed and upstream_failed
        #[arg(short = 'f', long)]
        only_failed: bool,
    },
    /// List open questions of human-in-the-loop tasks
    Questions {
        #[command(flatten)]
        environment: Environment,
        /// Filter by DAG id
        #[arg(long, value_name = "ID", value_parser = id)]
        dag_id: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Answer the question of a human-in-the-loop task
    Answer {
        #[command(flatten)]
        task: Task,
        /// Option to choose; repeat it if the question allows several
        #[arg(long = "option", value_name = "OPTION", required = true, allow_hyphen_values = true)]
        options: Vec<String>,
        /// Values for the question's params, a JSON object
        #[arg(long, value_name = "JSON")]
        params: Option<String>,
    },
    /// Set the state of a task
    ///
    /// Tasks that failed because of it rerun.
    Mark {
        #[command(flatten)]
        task: Task,
        /// New state: success, failed or skipped
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
    /// Task id, as in `tasks list`
    #[arg(long, value_name = "ID", value_parser = id)]
    pub task_id: String,
    /// Index of a mapped task instance [default: all; required by `tasks logs`]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub map_index: Option<i32>,
}

impl Task {
    /// Returns the path parameters of the task.
    pub fn path(&self) -> (&str, &str, &str) {
        (&self.run.dag_id, &self.run.run_id, &self.task_id)
    }
}

#[derive(Args)]
pub struct Relatives {
    /// Include all upstream tasks
    #[arg(short, long)]
    pub upstream: bool,
    /// Include all downstream tasks
    #[arg(short, long)]
    pub downstream: bool,
}

/// Parses an id that becomes a part of a request's path, where `.` and `..` would lead elsewhere.
fn id(text: &str) -> Result<String, String> {
    match text {
        "" => Err("the id is empty".to_owned()),
        "." | ".." => Err(format!("{text:?} is not an id that a URL can carry")),
        _ => Ok(text.to_owned()),
    }
}

/// Parses a value of an enumeration of the API.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    // clap already names the value.
    let without_value = |why: String| match why.split_once("`, expected ") {
        Some((_, known)) => format!("expected {known}"),
        None => why,
    };
    serde_json::from_value(text.into()).map_err(|error| without_value(error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    const LONGEST_LINE: usize = 72;

    /// Returns all commands, including subcommands.
    fn commands() -> Vec<Command> {
        fn collect(command: &Command, found: &mut Vec<Command>) {
            found.push(command.clone());
            command.get_subcommands().filter(|one| one.get_name() != "help").for_each(|one| collect(one, found));
        }
        let mut root = super::Cli::command();
        root.build();
        let mut found = Vec::new();
        collect(&root, &mut found);
        found
    }

    #[test]
    fn clap_definition_is_valid() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn help_of_every_command() {
        let path = |command: &Command| command.get_bin_name().unwrap_or(command.get_name()).to_owned();
        let help: Vec<String> = commands()
            .into_iter()
            .map(|command| {
                let name = path(&command);
                format!("$ {name} --help\n{}", command.term_width(100).render_long_help())
            })
            .collect();
        insta::assert_snapshot!(help.join("\n"));
    }

    #[test]
    fn lines_of_help_are_short_imperatives() {
        for command in commands() {
            let about = command.get_about().unwrap_or_default().to_string();
            let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
            assert!(
                !about.is_empty() && about.len() <= LONGEST_LINE,
                "{name}: {about:?} has {} characters",
                about.len()
            );
            assert!(!about.ends_with('.'), "{name}: {about:?} ends with a full stop");
        }
    }
}
