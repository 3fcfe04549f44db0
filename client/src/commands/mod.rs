//! One file per noun; each command talks to the daemon and hands its result to the printer.

mod auth;
mod backfills;
mod completions;
mod connections;
mod cost;
mod create;
mod daemon;
mod dags;
mod doctor;
mod env;
mod files;
mod logs;
mod man;
mod operations;
mod pools;
mod runs;
mod tasks;
mod ui;
mod variables;
mod watch;

use crate::{
    cli::Command,
    error::{CliError, ExitStatus},
    printer::Printer,
};

type Outcome = Result<ExitStatus, CliError>;

pub async fn run(command: Command, printer: &Printer) -> Outcome {
    match command {
        Command::Create(arguments) => create::create(arguments, printer).await,
        Command::Auth(command) => auth::run(command, printer).await,
        Command::Env(command) => env::run(command, printer).await,
        Command::Dags(command) => dags::run(command, printer).await,
        Command::Runs(command) => runs::run(command, printer).await,
        Command::Tasks(command) => tasks::run(command, printer).await,
        Command::Backfills(command) => backfills::run(command, printer).await,
        Command::Variables(command) => variables::run(command, printer).await,
        Command::Connections(command) => connections::run(command, printer).await,
        Command::Pools(command) => pools::run(command, printer).await,
        Command::Ui(arguments) => ui::ui(arguments, printer).await,
        Command::Tick(environment) => env::tick(environment, printer).await,
        Command::Cost(arguments) => cost::cost(arguments, printer).await,
        Command::Operations(command) => operations::run(command, printer).await,
        Command::Events(arguments) => operations::events(arguments, printer).await,
        Command::Watch(command) => watch::run(command, printer).await,
        Command::Logs(arguments) => logs::logs(arguments, printer).await,
        Command::Daemon(command) => daemon::run(command, printer).await,
        Command::Doctor => doctor::run(printer).await,
        Command::Completions(arguments) => completions::run(&arguments, printer),
        Command::Man(arguments) => man::run(&arguments, printer),
    }
}
