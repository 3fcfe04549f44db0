//! Start and stop: folders, lock, registry, Local Modal, API; then the same backwards.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use airflow_serverless_api::home::Home;
use chrono::Utc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    airflow::Airflow,
    background::{EnvironmentReconciler, Housekeeper, steps::Tools},
    credentials::CredentialsFile,
    events::Events,
    http::{Services, router},
    listeners::{Activation, ListenError, Listeners, LoopbackAddress},
    metrics::Metrics,
    modal::{LocalModal, Modal, ModalError},
    registry::Registry,
    runtime::{Runtime, Validator},
    settings::{Settings, SettingsError},
    store::{Store, StoreError},
    watcher::Watchers,
};

/// How long requests under way may take once the daemon stops.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    #[error("{action} {path} failed")]
    Files { action: &'static str, path: String, source: io::Error },
    #[error("another airflowd runs with this home (lock {path}); `airflow-serverless daemon stop` stops it")]
    AlreadyRunning { path: String },
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Modal(#[from] ModalError),
    #[error(transparent)]
    Watches(#[from] crate::error::Error),
    #[error("the API cannot be served")]
    Listen(#[from] ListenError),
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
}

/// Runs the daemon until SIGTERM or SIGINT. The port goes before that of the settings.
pub async fn run(home: Home, port: Option<LoopbackAddress>, activation: Activation) -> Result<(), LifecycleError> {
    let stop = stop_signal().map_err(LifecycleError::Signals)?;
    for folder in [&home.data, &home.state, &home.cache, &home.runtime] {
        create_private(folder)?;
    }
    let settings = Settings::read(&home.config)?;
    let _lock = lock(&home)?;
    // Whoever connects from now on is answered once everything is there.
    let listeners = Listeners::open(&home, port.or(settings.listen), activation)?;
    let store = Store::open(&home.data.join("registry.db")).await?;
    let runtime = Runtime::new(&home);
    let local = LocalModal::start(&home, &settings.local_modal, &runtime.interpreter()).await?;
    let credentials = CredentialsFile::in_folder(&home.data);
    let modal = Modal::new(&local, credentials.clone()).await?;
    let events = Events::new(store.clone(), Utc::now);
    let registry = Registry::new(store.clone(), modal.clone(), events, Utc::now);
    let idle = Duration::from_secs(settings.validator.idle_seconds.into());
    let validator = Validator::new(runtime.clone(), home.cache.join("validator"), idle);
    let airflow = Arc::new(Airflow::new(registry.clone(), modal.clone(), validator, home.cache.clone()));

    let metrics = Metrics::new();
    let tasks = TaskTracker::new();
    let tools = Tools { modal, runtime };
    tasks.spawn(Housekeeper::new(registry.clone()).run(stop.clone()));
    tasks.spawn(EnvironmentReconciler::new(registry.clone(), tools, metrics.clone()).run(stop.clone()));
    tasks.close();
    let watchers = Arc::new(Watchers::new(registry.clone(), airflow.clone(), (settings.watch, &home), stop.clone()));
    watchers.start().await?;
    tracing::info!(places = listeners.places().join(", "), pid = std::process::id(), "airflowd serves");

    let handled = (airflow.clone(), watchers.clone());
    let services = Services::new(registry, handled, credentials, metrics, stop.clone());
    listeners.serve(router(services), stop.clone(), GRACE).await;
    tracing::info!("airflowd stops");
    stop.cancel();
    tasks.wait().await;
    watchers.stop().await;
    airflow.stop().await;
    local.stop().await;
    store.close().await;
    Ok(())
}

/// Cancelled by the first SIGTERM or SIGINT; a second one ends the process at once.
fn stop_signal() -> io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let mut next = async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
        next().await;
        stop.cancel();
        next().await;
        tracing::warn!("told twice to stop: ending at once");
        std::process::exit(130);
    });
    Ok(token)
}

fn create_private(folder: &Path) -> Result<(), LifecycleError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| failed("creating", folder, source))
}

/// Keeps a second daemon off this home; the file holds the pid for people and scripts.
fn lock(home: &Home) -> Result<File, LifecycleError> {
    let path = home.runtime.join("airflowd.pid");
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let mut file = opened.map_err(|source| failed("opening", &path, source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            return Err(LifecycleError::AlreadyRunning { path: path.display().to_string() });
        }
        Err(std::fs::TryLockError::Error(source)) => return Err(failed("locking", &path, source)),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|source| failed("writing", &path, source))?;
    Ok(file)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> LifecycleError {
    LifecycleError::Files { action, path: path.display().to_string(), source }
}
