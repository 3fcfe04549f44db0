//! `modal-local`: Local Modal as a program of its own.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use modal_emulator::{Emulator, Listen, Options, VolumeMode};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Runs Modal apps on this machine: deploy with the modal SDK, without an account.
#[derive(Parser)]
#[command(name = "modal-local", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until interrupted. Prints MODAL_SERVER_URL=… when ready; logs go to stderr (RUST_LOG sets how much).
    Serve(Serve),
}

#[derive(Args)]
struct Serve {
    /// Listen on a loopback address, with port 0 for a free one
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "unix")]
    listen: Option<SocketAddr>,
    /// Listen on a Unix socket [default: modal.sock in the data folder]
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Where apps, calls, Dicts and Volumes are kept
    #[arg(long, value_name = "FOLDER", default_value = ".modal-local", conflicts_with = "ephemeral")]
    data_dir: PathBuf,
    /// The interpreter that runs functions; it needs the modal package
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
    /// What containers see of Volumes
    #[arg(long, value_enum, default_value_t)]
    volumes: Volumes,
    /// Run functions that ask for a GPU without one, instead of refusing them
    #[arg(long)]
    ignore_gpu: bool,
    /// Run commands of images' recipes (run_commands, apt_install, Dockerfiles) on this machine, as this user
    #[arg(long)]
    unsafe_run_commands: bool,
    /// Keep nothing: use a temporary data folder
    #[arg(long)]
    ephemeral: bool,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Volumes {
    /// The Volume's own folder: a missing commit or reload goes unnoticed
    #[default]
    Bind,
    /// A copy of their own, as on Modal: others see what is committed, and after a reload
    Strict,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match Cli::parse().command {
        Command::Serve(serve) => run(serve).await,
    }
}

async fn run(serve: Serve) -> anyhow::Result<()> {
    // Before anything is started, so that an early signal is not missed.
    let mut terminate = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("could not listen for SIGINT")?;
    let temporary = serve.ephemeral.then(|| tempfile::Builder::new().prefix("modal-local-").tempdir()).transpose();
    let temporary = temporary.context("could not create a temporary data folder")?;
    let mut options = Options::new(temporary.as_ref().map_or(serve.data_dir, |folder| folder.path().to_owned()));
    options.python = serve.python;
    options.volumes = match serve.volumes {
        Volumes::Bind => VolumeMode::Bind,
        Volumes::Strict => VolumeMode::Strict,
    };
    options.ignore_gpu = serve.ignore_gpu;
    options.unsafe_run_commands = serve.unsafe_run_commands;
    if let Some(address) = serve.listen {
        options.listen = Listen::Tcp(address);
    } else if let Some(path) = serve.unix {
        options.listen = Listen::Unix(path);
    }
    let emulator = Emulator::start(options).await?;
    println!("MODAL_SERVER_URL={}", emulator.server_url());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::select! {
        () = emulator.shutdown() => Ok(()),
        _ = terminate.recv() => bail!("stopped at once; containers that still run are killed by the next start"),
        _ = interrupt.recv() => bail!("stopped at once; containers that still run are killed by the next start"),
    }
}
