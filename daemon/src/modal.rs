//! Where environments run. This is the one module that knows Local Modal to be inside the daemon.

use std::path::Path;

use airflow_serverless_api::home::Home;
use modal_client::Client;
use modal_emulator::{Emulator, Listen, Options, StartError, VolumeMode};
use tokio_util::sync::CancellationToken;

use crate::settings::{LocalModal, Volumes};

/// The asynchronous runtime of a program with Local Modal inside.
pub use modal_emulator::runtime;
pub use modal_emulator::{Heartbeat, Killer};

/// A Modal server: Local Modal, started with the daemon and stopped with it.
pub struct Modal {
    emulator: Emulator,
    client: Client,
}

/// How the SDK reaches a Modal server.
#[derive(Clone)]
pub struct Server {
    pub url: String,
    pub token_secret: String,
}

impl Server {
    /// The one of the daemon.
    pub fn of(modal: &Modal) -> Self {
        Self { url: modal.emulator.server_url().to_owned(), token_secret: modal.emulator.token_secret().to_owned() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ModalError {
    #[error("Local Modal cannot start")]
    Start(#[from] StartError),
    #[error("Local Modal cannot be reached")]
    Connect(#[from] modal_client::Error),
}

impl ModalError {
    /// Whether a newer Local Modal wrote what is on disk.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Start(StartError::Store(error)) if error.is_newer())
    }
}

impl Modal {
    /// Starts Local Modal; its containers will run in `interpreter`, which may be made later.
    pub async fn start(home: &Home, settings: &LocalModal, interpreter: &Path) -> Result<Self, ModalError> {
        let socket = || settings.unix.clone().unwrap_or_else(|| home.runtime.join("modal.sock"));
        let options = Options {
            listen: settings.listen.map_or_else(|| Listen::Unix(socket()), Listen::Tcp),
            python: interpreter.to_owned(),
            volumes: match settings.volumes {
                Volumes::Bind => VolumeMode::Bind,
                Volumes::Strict => VolumeMode::Strict,
            },
            ignore_gpu: settings.ignore_gpu,
            unsafe_run_commands: settings.unsafe_run_commands,
            ..Options::new(settings.data_dir.clone().unwrap_or_else(|| home.data.join("modal")))
        };
        let emulator = Emulator::start(options).await?;
        let client = Client::connect(emulator.server_url(), emulator.token_secret()).await?;
        Ok(Self { emulator, client })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Cancelled when it ends although nobody stopped it.
    pub fn failed(&self) -> CancellationToken {
        self.emulator.failed()
    }

    /// For a look whether it works.
    pub fn heartbeat(&self) -> Heartbeat {
        self.emulator.heartbeat()
    }

    /// What ends its containers when there is no time to stop it.
    pub fn killer(&self) -> Killer {
        self.emulator.killer()
    }

    /// Ends the containers and closes the server.
    pub async fn stop(self) {
        self.emulator.shutdown().await;
    }
}
