//! `modal-local`: Local Modal as a standalone program.

#[path = "main/admin.rs"]
mod admin;
#[path = "main/serve.rs"]
mod serve;
#[path = "main/status.rs"]
mod status;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Run Modal apps on this machine: deploy with the modal SDK, without an account
#[derive(Parser)]
#[command(name = "modal-local", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until interrupted. Prints MODAL_SERVER_URL=… when ready; logs go to stderr (RUST_LOG sets the level)
    Serve(serve::Serve),
    /// Show the apps, containers and queues of a running server
    Status(status::Show),
    /// Print the variables with which the modal SDK finds a running server, for `eval "$(modal-local env)"`
    Env(status::Env),
    /// Show the pending faults, or replace them by a JSON array, such as [{"rpc": "FunctionPutOutputs", "action":
    /// "kill", "when": "after"}]; an empty one removes all
    Faults(status::Faults),
}

/// The server that a command is about.
#[derive(Args)]
struct DataDir {
    /// The data folder of the server
    #[arg(long, value_name = "FOLDER", default_value = ".modal-local", env = "MODAL_LOCAL_DATA_DIR")]
    data_dir: PathBuf,
}

fn main() -> ExitCode {
    let ended = modal_emulator::runtime().context("starting the runtime").and_then(|runtime| runtime.block_on(run()));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match Cli::parse().command {
        Command::Serve(serve) => serve.run().await,
        Command::Status(show) => show.run().await,
        Command::Env(env) => env.run().await,
        Command::Faults(faults) => faults.run().await,
    }
}
