//! Start and stop: folders, lock, registry, Local Modal, API; then the same backwards.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use airflow_serverless_api::home::Home;
use chrono::Utc;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    airflow::Airflow,
    background::{EnvironmentReconciler, steps::Tools},
    http::{Services, router},
    modal::{Modal, ModalError, Server},
    registry::Registry,
    runtime::{Runtime, Validator},
    settings::{Settings, SettingsError},
    store::{Store, StoreError},
    vault::Vault,
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
    #[error(
        "the path of the socket is too long for this system ({length} bytes, at most 107): {path}; \
         set AIRFLOW_SERVERLESS_HOME to a shorter folder"
    )]
    SocketPath { path: String, length: usize },
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Modal(#[from] ModalError),
    #[error(transparent)]
    Watches(#[from] crate::error::Error),
    #[error("the API cannot be served")]
    Serve(#[source] io::Error),
}

/// Runs the daemon until SIGTERM or SIGINT.
pub async fn run(home: Home) -> Result<(), LifecycleError> {
    let stop = stop_signal().map_err(LifecycleError::Serve)?;
    for folder in [&home.data, &home.state, &home.cache, &home.runtime] {
        create_private(folder)?;
    }
    let settings = Settings::read(&home.config)?;
    let _lock = lock(&home)?;
    let store = Store::open(&home.data.join("registry.db")).await?;
    let runtime = Runtime::new(&home);
    let modal = Modal::start(&home, &settings.local_modal, &runtime.interpreter()).await?;
    let vault = Vault::new(modal.client().clone());
    let registry = Registry::new(store.clone(), vault.clone(), Utc::now);
    let idle = Duration::from_secs(settings.validator.idle_seconds.into());
    let validator = Validator::new(runtime.clone(), home.cache.join("validator"), idle);
    let airflow = Arc::new(Airflow::new(registry.clone(), modal.client().clone(), validator, home.cache.clone()));
    let listener = listen(&home.socket())?;

    let tasks = TaskTracker::new();
    let tools = Tools { client: modal.client().clone(), vault, server: Server::of(&modal), runtime };
    tasks.spawn(EnvironmentReconciler::new(registry.clone(), tools).run(stop.clone()));
    tasks.close();
    let watchers = Arc::new(Watchers::new(registry.clone(), airflow.clone(), (settings.watch, &home), stop.clone()));
    watchers.start().await?;
    tracing::info!(socket = %home.socket().display(), pid = std::process::id(), "airflowd serves");

    let services = Services { registry, airflow: airflow.clone(), watchers: watchers.clone() };
    let serving = axum::serve(listener, router(services)).with_graceful_shutdown(stop.clone().cancelled_owned());
    let grace = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let served = tokio::select! {
        result = serving.into_future() => result.map_err(LifecycleError::Serve),
        () = grace => Ok(()),
    };
    tracing::info!("airflowd stops");
    stop.cancel();
    tasks.wait().await;
    watchers.stop().await;
    airflow.stop().await;
    modal.stop().await;
    store.close().await;
    served
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

/// Binds the socket, over one that a killed daemon left behind: the lock says that nobody else serves it.
fn listen(path: &Path) -> Result<UnixListener, LifecycleError> {
    const LONGEST: usize = 107;
    let length = path.as_os_str().len();
    if length > LONGEST {
        return Err(LifecycleError::SocketPath { path: path.display().to_string(), length });
    }
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed("removing", path, source)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(|source| failed("binding", path, source))?;
    // The folder is private already; this keeps the socket so if the folder is not.
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(|source| failed("protecting", path, source))?;
    Ok(listener)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> LifecycleError {
    LifecycleError::Files { action, path: path.display().to_string(), source }
}
