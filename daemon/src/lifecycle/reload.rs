//! SIGHUP: reads the settings again and applies those that can change at runtime.

use std::{io, path::PathBuf};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::SERVES;
use crate::{logging::Logging, notify::ServiceManager, report::chain, settings::Settings};

pub struct Reloader {
    hangups: Signal,
    folder: PathBuf,
    /// The settings at startup, except for the current log settings.
    settings: Settings,
    logging: Logging,
    manager: ServiceManager,
}

impl Reloader {
    /// Installs the handler: from now on SIGHUP does not end the process.
    pub fn new(folder: PathBuf, settings: Settings, logging: Logging, manager: ServiceManager) -> io::Result<Self> {
        Ok(Self { hangups: signal(SignalKind::hangup())?, folder, settings, logging, manager })
    }

    pub async fn run(mut self, cancelled: CancellationToken) {
        loop {
            tokio::select! {
                () = cancelled.cancelled() => return,
                _ = self.hangups.recv() => {}
            }
            self.manager.reloading();
            let status = self.reload();
            self.manager.ready(status);
        }
    }

    /// Reloads; returns the new status.
    fn reload(&mut self) -> &'static str {
        if let Err(error) = self.logging.reopen() {
            tracing::error!(error = chain(&error), "the log could not be reopened");
        }
        let read = Settings::read(&self.folder).map_err(|error| chain(&error));
        let changed = read
            .and_then(|settings| self.logging.change(&settings.log).map(|()| settings).map_err(|error| chain(&error)));
        match changed {
            Ok(settings) => {
                let waiting = self.settings.waiting_for_a_restart(&settings);
                if !waiting.is_empty() {
                    let settings = waiting.join(", ");
                    tracing::warn!(settings, "changed settings that take effect when the daemon is restarted");
                }
                self.settings.log = settings.log;
                tracing::info!("the settings were read again");
                SERVES
            }
            Err(error) => {
                tracing::error!(error, "the changed settings cannot be used: all stay as they were");
                "serves; its changed settings cannot be used, see the log"
            }
        }
    }
}
