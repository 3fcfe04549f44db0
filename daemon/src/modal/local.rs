//! Local Modal inside the daemon.

use std::path::Path;

use airflow_serverless_api::home::Home;
use modal_client::Token;
use modal_emulator::{Emulator, ImageSteps, KillSwitch, Listen, LocalModalHealth, Options, VolumeMode};
use tokio_util::sync::CancellationToken;

use super::ModalError;
use crate::settings::{self, Images, Volumes};

/// The emulator, started with the daemon and stopped with it.
pub struct LocalModal {
    emulator: Emulator,
    token: Token,
}

impl LocalModal {
    /// Starts Local Modal; its containers run in `interpreter`, which may be created later.
    pub async fn start(home: &Home, settings: &settings::LocalModal, interpreter: &Path) -> Result<Self, ModalError> {
        let listen = match (settings.listen, &settings.unix) {
            (Some(address), _) => Listen::Tcp(address),
            (None, Some(path)) => Listen::Unix(path.clone()),
            (None, None) => Listen::by_default(home.runtime.join("modal.sock")),
        };
        let options = Options {
            listen,
            python: interpreter.to_owned(),
            volumes: match settings.volumes {
                Volumes::Bind => VolumeMode::Bind,
                Volumes::Strict => VolumeMode::Strict,
            },
            ignore_gpu: settings.ignore_gpu,
            image_steps: match settings.images {
                _ if settings.unsafe_run_commands => ImageSteps::Run,
                Images::Refuse => ImageSteps::Refuse,
                Images::Skip => ImageSteps::Skip,
            },
            ..Options::new(settings.data_dir.clone().unwrap_or_else(|| home.data.join("modal")))
        };
        let emulator = Emulator::start(options).await?;
        let token = Token { id: "ak-local".to_owned(), secret: emulator.token_secret().to_owned() };
        Ok(Self { emulator, token })
    }

    /// Returns its URL and token.
    pub(super) fn address(&self) -> (String, Token) {
        (self.emulator.server_url().to_owned(), self.token.clone())
    }

    /// Returns a token that is canceled when Local Modal ends unexpectedly.
    pub fn failed(&self) -> CancellationToken {
        self.emulator.failed()
    }

    /// For a look whether it works.
    pub fn heartbeat(&self) -> LocalModalHealth {
        self.emulator.heartbeat()
    }

    /// Returns a handle that kills its containers when there is no time for a regular stop.
    pub fn kill_switch(&self) -> KillSwitch {
        self.emulator.kill_switch()
    }

    /// Stops the containers and closes the server.
    pub async fn stop(self) {
        self.emulator.shutdown().await;
    }
}
