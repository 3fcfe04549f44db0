//! Stop signals for the daemon.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The first signal requests a graceful stop; the second one an immediate exit.
#[derive(Clone, Default)]
pub struct Stop {
    /// Graceful stop: begin nothing new.
    pub soft: CancellationToken,
    /// Immediate exit.
    pub hard: CancellationToken,
}

impl Stop {
    /// Stops at SIGTERM or SIGINT.
    pub fn at_signals() -> io::Result<Self> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = Self::default();
        let told = stop.clone();
        tokio::spawn(async move {
            let mut next = async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
            next().await;
            told.soft.cancel();
            next().await;
            told.hard.cancel();
        });
        Ok(stop)
    }
}
