//! Start and stop: folders, lock, registry, Local Modal, API; then the same backwards.
//!
//! Told once to stop, the daemon takes no more requests, lets those under way and the step of an operation under way
//! come to their end for a while, then stops Local Modal, and closes the registry last. What was not finished is
//! repeated at the next start. Told twice, it ends at once.

mod health;
mod lock;
mod reload;
mod stop;
mod tasks;

use std::{
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use airflow_serverless_api::home::{ALREADY_RUNNING, Home, UNUSABLE};
use chrono::Utc;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use self::{health::Health, lock::lock, reload::Reloader, stop::Stop, tasks::Tasks};
use crate::{
    airflow::Airflow,
    background::{EnvironmentReconciler, steps::Tools},
    diagnostics::Diagnostician,
    http::{Services, router},
    logging::Logging,
    modal::{Modal, ModalError, Server},
    notify::ServiceManager,
    registry::Registry,
    runtime::{Runtime, Validator},
    settings::Settings,
    store::{Store, StoreError},
    vault::Vault,
};

/// How long what is under way may take once the daemon stops.
const DRAIN: Duration = Duration::from_secs(20);
/// How long the stop may take as a whole, containers included. The unit and the CLI wait a little longer.
const LONGEST_STOP: Duration = Duration::from_secs(60);
/// What the service manager shows of a daemon that is well.
const SERVES: &str = "serves";

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
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Modal(#[from] ModalError),
    #[error("{0} failed, and the daemon with it; the log tells why, and the next start goes on where it was")]
    Failed(&'static str),
    #[error("told twice to stop: ended at once; what was under way is repeated at the next start")]
    Interrupted,
    #[error("the stop took longer than {} s: ended at once", LONGEST_STOP.as_secs())]
    SlowStop,
}

impl LifecycleError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::AlreadyRunning { .. } => ALREADY_RUNNING,
            // As a shell tells the end by SIGINT.
            Self::Interrupted => 130,
            Self::SocketPath { .. } => UNUSABLE,
            Self::Store(error) if error.is_newer() => UNUSABLE,
            Self::Modal(error) if error.is_newer() => UNUSABLE,
            _ => 1,
        }
    }
}

/// A daemon that runs.
struct Daemon {
    tasks: Tasks,
    airflow: Arc<Airflow>,
    registry: Registry,
    modal: Modal,
    store: Store,
}

/// Runs the daemon until SIGTERM or SIGINT.
pub async fn run(home: Home, settings: Settings, logging: Logging) -> Result<(), LifecycleError> {
    let stop = Stop::at_signals().map_err(LifecycleError::Signals)?;
    let manager = ServiceManager::from_environment();
    let reloader = Reloader::new(home.config.clone(), settings.clone(), logging, manager.clone());
    let reloader = reloader.map_err(LifecycleError::Signals)?;
    for folder in [&home.data, &home.state, &home.cache, &home.runtime] {
        create_private(folder)?;
    }
    let _lock = lock(&home)?;
    let daemon = tokio::select! {
        started = Daemon::start(&home, &settings, &manager, &stop.soft) => started?,
        () = stop.hard.cancelled() => return Err(LifecycleError::Interrupted),
    };
    daemon.tasks.spawn("the reader of settings", reloader.run(stop.soft.clone()));
    tracing::info!(socket = %home.socket().display(), pid = std::process::id(), "airflowd serves");
    manager.ready(SERVES);

    stop.soft.cancelled().await;
    manager.stopping("ends what it has begun");
    tracing::info!("airflowd stops");
    let tasks = daemon.tasks.clone();
    let killer = daemon.modal.killer();
    let outcome = tokio::select! {
        () = health::while_stopping(&manager, daemon.stop(&manager)) => Ok(()),
        () = stop.hard.cancelled() => Err(LifecycleError::Interrupted),
        () = tokio::time::sleep(LONGEST_STOP) => Err(LifecycleError::SlowStop),
    };
    if outcome.is_err() {
        // No container outlives the daemon.
        killer.kill();
    }
    tasks.failed().map_or(outcome, |task| Err(LifecycleError::Failed(task)))
}

impl Daemon {
    async fn start(
        home: &Home,
        settings: &Settings,
        manager: &ServiceManager,
        stop: &CancellationToken,
    ) -> Result<Self, LifecycleError> {
        manager.status("opens its registry");
        let store = Store::open(&home.data.join("registry.db")).await?;
        let runtime = Runtime::new(home);
        manager.status("starts Local Modal");
        let modal = Modal::start(home, &settings.local_modal, &runtime.interpreter()).await?;
        let vault = Vault::new(modal.client().clone());
        let registry = Registry::new(store.clone(), vault.clone(), Utc::now);
        let validator = Validator::new(runtime.clone());
        let airflow = Airflow::new(registry.clone(), modal.client().clone(), validator, home.cache.clone());
        let airflow = Arc::new(airflow);
        let listener = listen(&home.socket())?;

        let tasks = Tasks::new(stop.clone());
        let diagnostician = Arc::new(Diagnostician {
            home: home.clone(),
            registry: registry.clone(),
            runtime: runtime.clone(),
            client: modal.client().clone(),
            server: Server::of(&modal),
            heartbeat: modal.heartbeat(),
        });
        let tools = Tools { client: modal.client().clone(), vault, server: Server::of(&modal), runtime };
        let reconciler = EnvironmentReconciler::new(registry.clone(), tools);
        tasks.spawn("the reconciler of environments", reconciler.run(stop.clone()));
        let health = Health { manager: manager.clone(), store: store.clone(), modal: modal.heartbeat() };
        tasks.spawn("the watch over the daemon", health.run(stop.clone()));
        let (ended, stopped) = (modal.failed(), stop.clone());
        tasks.spawn("Local Modal", async move {
            tokio::select! { () = ended.cancelled() => {}, () = stopped.cancelled() => {} }
        });
        let services = Services { registry: registry.clone(), airflow: airflow.clone(), diagnostician };
        tasks.spawn("the API", serve(listener, services, stop.clone()));
        Ok(Self { tasks, airflow, registry, modal, store })
    }

    async fn stop(self, manager: &ServiceManager) {
        self.registry.hang_up();
        self.tasks.drain(DRAIN).await;
        self.airflow.stop().await;
        manager.status("stops Local Modal");
        self.modal.stop().await;
        manager.status("closes its registry");
        self.store.close().await;
    }
}

/// Serves until cancelled, and then for as long as the last requests take.
async fn serve(listener: UnixListener, services: Services, stop: CancellationToken) {
    let serving = axum::serve(listener, router(services)).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "the API cannot be served");
    }
}

fn create_private(folder: &Path) -> Result<(), LifecycleError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| failed("creating", folder, source))
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
