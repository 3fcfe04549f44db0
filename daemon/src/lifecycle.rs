//! Startup and shutdown: folders, lock, registry, Local Modal, API; then the reverse.
//!
//! On the first stop signal the daemon accepts no more requests, gives running requests and the current step of
//! operations some time to finish, then stops Local Modal, and closes the registry last. The next start repeats
//! unfinished work. On the second signal it exits immediately.

mod health;
mod lock;
mod reload;
mod stop;
mod tasks;

use std::{io, os::unix::fs::DirBuilderExt, path::Path, sync::Arc, time::Duration};

use airflow_serverless_api::home::{ALREADY_RUNNING, Home, UNUSABLE};
use chrono::Utc;
use tokio_util::sync::CancellationToken;

use self::{health::Health, lock::lock, reload::Reloader, stop::Stop, tasks::Tasks};
use crate::{
    airflow::{Airflow, Uis},
    background::{EnvironmentReconciler, Housekeeper, SchedulerObserver, steps::Tools},
    base::Base,
    diagnostics::Diagnostician,
    http::{Services, router},
    listeners::{Activation, ListenError, Listeners},
    logging::Logging,
    loopback::LoopbackAddress,
    metrics::Metrics,
    modal::{CredentialsFile, LocalModal, Modal, ModalError},
    notify::ServiceManager,
    registry::Registry,
    runtime::{Runtime, Validator},
    settings::Settings,
    store::{Store, StoreError},
    watcher::Watchers,
};

/// Time limit for work in progress once the daemon stops.
const DRAIN: Duration = Duration::from_secs(20);
/// Time limit for the whole shutdown, including containers. The unit and the CLI wait a little longer.
const LONGEST_STOP: Duration = Duration::from_secs(60);
/// Status of a healthy daemon in the service manager.
const SERVES: &str = "serves";

#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    #[error("{action} {path} failed")]
    Files { action: &'static str, path: String, source: io::Error },
    #[error("another airflowd runs with this home ({who}); `airflow-serverless daemon stop` stops it")]
    AlreadyRunning { who: String },
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Modal(#[from] ModalError),
    #[error(transparent)]
    Watches(#[from] crate::error::Error),
    #[error("the API cannot be served")]
    Listen(#[from] ListenError),
    #[error("{0} failed, and the daemon with it; the log shows why, and the next start resumes where it was")]
    Failed(&'static str),
    #[error("received a second stop signal; exiting immediately. Unfinished work resumes at the next start")]
    Interrupted,
    #[error("the stop took longer than {} s: ended at once", LONGEST_STOP.as_secs())]
    SlowStop,
}

impl LifecycleError {
    /// Returns the exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::AlreadyRunning { .. } => ALREADY_RUNNING,
            // The shell convention for SIGINT.
            Self::Interrupted => 130,
            Self::Listen(error) if error.is_lasting() => UNUSABLE,
            Self::Store(error) if error.is_newer() => UNUSABLE,
            Self::Modal(error) if error.is_newer() => UNUSABLE,
            _ => 1,
        }
    }
}

/// A running daemon.
struct Daemon {
    tasks: Tasks,
    airflow: Arc<Airflow>,
    watchers: Arc<Watchers>,
    registry: Registry,
    local: LocalModal,
    store: Store,
}

/// Where the daemon serves in addition to its socket.
pub struct Places {
    /// Takes precedence over the settings.
    pub port: Option<LoopbackAddress>,
    pub activation: Activation,
}

/// Runs the daemon until SIGTERM or SIGINT.
pub async fn run(home: Home, settings: Settings, logging: Logging, places: Places) -> Result<(), LifecycleError> {
    let stop = Stop::at_signals().map_err(LifecycleError::Signals)?;
    let manager = ServiceManager::from_environment();
    let reloader = Reloader::new(home.config.clone(), settings.clone(), logging, manager.clone());
    let reloader = reloader.map_err(LifecycleError::Signals)?;
    for folder in [&home.data, &home.state, &home.cache, &home.runtime] {
        create_private(folder)?;
    }
    let _lock = lock(&home)?;
    // Connections from now on wait until the startup is complete.
    let listeners = Listeners::open(&home, places.port.or(settings.listen), places.activation)?;
    let daemon = tokio::select! {
        started = Daemon::start(&home, &settings, listeners, &manager, &stop.soft) => started?,
        () = stop.hard.cancelled() => return Err(LifecycleError::Interrupted),
    };
    daemon.tasks.spawn("the reader of settings", reloader.run(stop.soft.clone()));
    manager.ready(SERVES);

    stop.soft.cancelled().await;
    manager.stopping("ends what it has begun");
    tracing::info!("airflowd stops");
    let tasks = daemon.tasks.clone();
    let kill_switch = daemon.local.kill_switch();
    let outcome = tokio::select! {
        () = health::while_stopping(&manager, daemon.stop(&manager)) => Ok(()),
        () = stop.hard.cancelled() => Err(LifecycleError::Interrupted),
        () = tokio::time::sleep(LONGEST_STOP) => Err(LifecycleError::SlowStop),
    };
    if outcome.is_err() {
        // No container may outlive the daemon.
        kill_switch.kill();
    }
    tasks.failed().map_or(outcome, |task| Err(LifecycleError::Failed(task)))
}

impl Daemon {
    async fn start(
        home: &Home,
        settings: &Settings,
        listeners: Listeners,
        manager: &ServiceManager,
        stop: &CancellationToken,
    ) -> Result<Self, LifecycleError> {
        manager.status("opens its registry");
        let store = Store::open(&home.data.join("registry.db")).await?;
        let runtime = Runtime::new(home);
        manager.status("starts Local Modal");
        let local = LocalModal::start(home, &settings.local_modal, &runtime.interpreter()).await?;
        let credentials = CredentialsFile::in_folder(&home.data);
        let modal = Modal::new(&local, credentials.clone()).await?;
        let base = Base::new(store.clone(), Utc::now);
        let registry = Registry::new(base.clone(), modal.clone());
        let idle = Duration::from_secs(settings.validator.idle_seconds.into());
        let validator = Validator::new(runtime.clone(), home.cache.join("validator"), idle);
        let beside = (validator, Uis::new(runtime.clone()));
        let airflow = Airflow::new(base.clone(), registry.clone(), modal.clone(), beside, home.cache.clone());
        let airflow = Arc::new(airflow);
        let metrics = Metrics::new();

        let tasks = Tasks::new(stop.clone());
        let diagnostician = Diagnostician {
            home: home.clone(),
            registry: registry.clone(),
            airflow: airflow.clone(),
            runtime: runtime.clone(),
            modal: modal.clone(),
            heartbeat: local.heartbeat(),
        };
        let reconciler =
            EnvironmentReconciler::new(base.clone(), registry.clone(), Tools { modal, runtime }, metrics.clone());
        tasks.spawn("the reconciler of environments", reconciler.run(stop.clone()));
        let housekeeper =
            Housekeeper::new(base.clone(), registry.clone(), airflow.clone(), settings.registry.cleanup_interval());
        tasks.spawn("the housekeeper", housekeeper.run(stop.clone()));
        let observer = SchedulerObserver::new(registry.clone(), airflow.clone());
        tasks.spawn("the observer of schedulers", observer.run(stop.clone()));
        let health = Health { manager: manager.clone(), store: store.clone(), modal: local.heartbeat() };
        tasks.spawn("the watch over the daemon", health.run(stop.clone()));
        let (ended, stopped) = (local.failed(), stop.clone());
        tasks.spawn("Local Modal", async move {
            tokio::select! { () = ended.cancelled() => {}, () = stopped.cancelled() => {} }
        });
        let watchers =
            Watchers::new(base.clone(), registry.clone(), airflow.clone(), (settings.watch, home), stop.clone());
        let watchers = Arc::new(watchers);
        watchers.start().await?;
        let handled = (airflow.clone(), watchers.clone());
        let services =
            Services::new((base, registry.clone()), handled, diagnostician, credentials, metrics, stop.clone());
        // Logged before the first response, so that every client finds this line in the log.
        tracing::info!(places = listeners.places().join(", "), pid = std::process::id(), "airflowd serves");
        tasks.spawn("the API", listeners.serve(router(services), stop.clone(), DRAIN));
        Ok(Self { tasks, airflow, watchers, registry, local, store })
    }

    async fn stop(self, manager: &ServiceManager) {
        self.registry.hang_up();
        self.tasks.drain(DRAIN).await;
        self.watchers.stop().await;
        self.airflow.stop().await;
        manager.status("stops Local Modal");
        self.local.stop().await;
        manager.status("closes its registry");
        self.store.close().await;
    }
}

fn create_private(folder: &Path) -> Result<(), LifecycleError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| failed("creating", folder, source))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> LifecycleError {
    LifecycleError::Files { action, path: path.display().to_string(), source }
}
