//! `modal-local serve`.

use std::{
    io::{IsTerminal, Write, stderr, stdout},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use modal_emulator::{Emulator, ImageSteps, Listen, Options, VolumeMode};
use tokio::signal::unix::{SignalKind, signal};

use crate::status::summary;

/// How often the status line is refreshed.
const LIVE: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct Serve {
    /// Listen on a loopback address, with port 0 for a free one
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "unix")]
    listen: Option<SocketAddr>,
    /// Listen on a Unix socket [default: modal.sock in the data folder]
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Where apps, calls, Dicts and Volumes are kept
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = ".modal-local",
        env = "MODAL_LOCAL_DATA_DIR",
        conflicts_with = "ephemeral"
    )]
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
    /// What to do with steps of images that are not Python packages (apt_install, run_commands, from_registry, …)
    #[arg(long, value_enum, default_value_t, conflicts_with = "unsafe_run_commands")]
    images: Images,
    /// Run commands of images' recipes (run_commands, apt_install, Dockerfiles) on this machine, as this user
    #[arg(long)]
    unsafe_run_commands: bool,
    /// Use a temporary data folder
    #[arg(long)]
    ephemeral: bool,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Volumes {
    /// The Volume's own folder: a missing commit or reload goes unnoticed
    #[default]
    Bind,
    /// A copy of their own, as on Modal: others see what is committed, after a reload
    Strict,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Images {
    /// Refuse images with such steps
    #[default]
    Refuse,
    /// Skip such steps, and name them in a warning when an app is deployed
    Skip,
}

impl Serve {
    fn options(self, temporary: Option<&tempfile::TempDir>) -> Options {
        let mut options = Options::new(temporary.map_or(self.data_dir, |folder| folder.path().to_owned()));
        options.python = self.python;
        options.volumes = match self.volumes {
            Volumes::Bind => VolumeMode::Bind,
            Volumes::Strict => VolumeMode::Strict,
        };
        options.ignore_gpu = self.ignore_gpu;
        options.image_steps = match self.images {
            _ if self.unsafe_run_commands => ImageSteps::Run,
            Images::Refuse => ImageSteps::Refuse,
            Images::Skip => ImageSteps::Skip,
        };
        if let Some(address) = self.listen {
            options.listen = Listen::Tcp(address);
        } else if let Some(path) = self.unix {
            options.listen = Listen::Unix(path);
        }
        options
    }

    pub async fn run(self) -> anyhow::Result<()> {
        // Before anything is started, so that an early signal is not missed.
        let mut terminate = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("could not listen for SIGINT")?;
        let temporary = self.ephemeral.then(|| tempfile::Builder::new().prefix("modal-local-").tempdir()).transpose();
        let temporary = temporary.context("could not create a temporary data folder")?;
        let emulator = Emulator::start(self.options(temporary.as_ref())).await?;
        announce(&emulator);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = show_live(&emulator) => {}
        }
        tokio::select! {
            () = emulator.shutdown() => Ok(()),
            _ = terminate.recv() => bail!("stopped at once; containers that still run are killed by the next start"),
            _ = interrupt.recv() => bail!("stopped at once; containers that still run are killed by the next start"),
        }
    }
}

/// Prints how to reach the server: one line for scripts, or a command to paste for people.
fn announce(emulator: &Emulator) {
    if stdout().is_terminal() {
        println!("Local Modal is ready at {}. In another shell:\n", emulator.server_url());
        println!("    eval \"$(modal-local env --data-dir {})\"\n", emulator.status().data_dir);
    } else {
        println!("MODAL_SERVER_URL={}", emulator.server_url());
    }
}

/// Keeps a status line up to date on a terminal; otherwise does nothing, forever.
async fn show_live(emulator: &Emulator) {
    if !(stdout().is_terminal() && stderr().is_terminal()) {
        return std::future::pending().await;
    }
    let mut shown = String::new();
    loop {
        let line = summary(&emulator.status());
        if line != shown {
            // A closed terminal is no reason to stop.
            let _ = write!(stderr(), "\r\x1b[K{line}").and_then(|()| stderr().flush());
            shown = line;
        }
        tokio::time::sleep(LIVE).await;
    }
}
