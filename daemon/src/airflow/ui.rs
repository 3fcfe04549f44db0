//! UIs: each runs until its client closes it, and at the latest until the daemon stops.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use airflow_serverless_api::{
    environment::Environment,
    ui::{Ui, UiList, UiProgress, UiReady, UiState},
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use uuid::Uuid;

use super::{Airflow, Deployed};
use crate::{
    error::{Error, Result},
    report::chain,
    runtime::{Runtime, UiProcess, UiWord},
};

/// Limit on concurrent UIs: each is a process here, and a container with Airflow.
const MOST: usize = 4;
/// Capacity of the queue of unread events of a UI.
const UNREAD: usize = 64;
/// Pause between two checks that the app and the environment still exist.
const LOOK: Duration = Duration::from_secs(5);

/// All open UIs.
pub struct Uis {
    runtime: Runtime,
    free: Arc<Semaphore>,
    open: Mutex<BTreeMap<Uuid, Ui>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// An event of a UI.
pub enum UiEvent {
    Progress(UiProgress),
    Ready(UiReady),
    /// Always the last event.
    Failed(Error),
}

/// An open UI, which stops when this is dropped.
pub struct OpenUi {
    events: mpsc::Receiver<UiEvent>,
    _close: DropGuard,
}

impl OpenUi {
    /// Waits for the next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<UiEvent> {
        self.events.recv().await
    }
}

impl Uis {
    pub fn new(runtime: Runtime) -> Self {
        let free = Arc::new(Semaphore::new(MOST));
        Self { runtime, free, open: Mutex::default(), tracker: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// Stops all UIs and waits until they have ended.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<Uuid, Ui>> {
        self.open.lock()
    }

    fn set(&self, id: Uuid, state: UiState) {
        if let Some(ui) = self.open().get_mut(&id) {
            ui.state = state;
        }
    }
}

impl Airflow {
    /// Lists the UIs that run, start or stop.
    pub fn list_uis(&self) -> UiList {
        let uis: Vec<Ui> = self.uis.open().values().cloned().collect();
        UiList { total_entries: uis.len() as u64, uis }
    }
}

impl Deployed {
    /// Starts the UI of an environment.
    pub async fn open_ui(&self) -> Result<OpenUi> {
        let Airflow { uis, modal, base, .. } = &*self.airflow;
        let Environment { name, target, config, .. } = &*self.environment;
        if !uis.runtime.is_ready().await {
            // After an upgrade of the daemon, the redeployment of the environment creates it.
            return Err(Error::EnvironmentNotReady(name.clone(), Some("its Python runtime is being made".to_owned())));
        }
        let permit = uis.free.clone().try_acquire_owned().map_err(|_| Error::TooManyUis(MOST))?;
        let server = modal.server(*target, config)?;
        let process = uis.runtime.start_ui(name, config, &server)?;
        let id = Uuid::now_v7();
        let (state, started_at) = (UiState::Starting, base.now());
        uis.open().insert(id, Ui { id, environment: name.clone(), state, started_at });
        let (sender, events) = mpsc::channel(UNREAD);
        // Sent at once, so that the client learns the id.
        let message = format!("Starting the UI of environment {name}");
        let _ = sender.try_send(UiEvent::Progress(UiProgress { id, message }));
        let close = uis.stop.child_token();
        let running = RunningUi { deployed: self.clone(), id, app: None, sender, _permit: permit };
        uis.tracker.spawn(running.supervise(process, close.clone()));
        Ok(OpenUi { events, _close: close.drop_guard() })
    }
}

/// The state of one UI from start to end.
struct RunningUi {
    deployed: Deployed,
    id: Uuid,
    /// The id of its app, once known.
    app: Option<String>,
    sender: mpsc::Sender<UiEvent>,
    _permit: OwnedSemaphorePermit,
}

impl RunningUi {
    fn uis(&self) -> &Uis {
        &self.deployed.airflow.uis
    }

    async fn supervise(mut self, mut process: UiProcess, close: CancellationToken) {
        let failure = tokio::select! {
            () = close.cancelled() => None,
            error = self.follow(&mut process) => Some(error),
        };
        self.uis().set(self.id, UiState::Ending);
        let has_ended_its_app = process.end().await;
        if !has_ended_its_app && let Some(app) = &self.app {
            // Modal would notice on its own, but only some minutes later.
            if let Err(error) = self.deployed.client.stop_app_with_id(app).await {
                tracing::warn!(app, error = chain(&error), "the app of a UI could not be stopped");
            }
        }
        self.uis().open().remove(&self.id);
        if let Some(error) = failure {
            tracing::warn!(environment.name = %self.deployed.name(), error = chain(&error), "a UI has failed");
            self.tell(UiEvent::Failed(error)).await;
        }
    }

    /// Forwards events until the UI fails.
    async fn follow(&mut self, process: &mut UiProcess) -> Error {
        let mut look = tokio::time::interval(LOOK);
        loop {
            let word = tokio::select! {
                word = process.next() => word,
                _ = look.tick() => match self.failure().await {
                    Some(error) => return error,
                    None => continue,
                },
            };
            let id = self.id;
            match word {
                UiWord::Progress(message) => self.tell(UiEvent::Progress(UiProgress { id, message })).await,
                UiWord::App(app) => self.app = Some(app),
                UiWord::Url(url) => {
                    self.uis().set(id, UiState::Ready);
                    self.tell(UiEvent::Ready(UiReady { id, url })).await;
                }
                UiWord::End(reason) => return self.failed(reason),
            }
        }
    }

    /// Returns why the UI cannot continue, if so.
    async fn failure(&self) -> Option<Error> {
        if let Err(error) = self.deployed.airflow.registry.deployed_environment(self.deployed.name()).await {
            return Some(error);
        }
        match self.deployed.client.is_app_running(self.app.as_ref()?).await {
            Ok(true) => None,
            Ok(false) => Some(self.failed("its app was stopped on Modal".to_owned())),
            Err(error) => {
                // No reason to stop the UI: its own process fails if this lasts.
                tracing::debug!(error = chain(&error), "it is not known whether the app of a UI runs");
                None
            }
        }
    }

    fn failed(&self, reason: String) -> Error {
        Error::UiFailed(self.deployed.name().clone(), reason)
    }

    async fn tell(&self, event: UiEvent) {
        // The client may be gone; then the UI stops anyway.
        let _ = self.sender.send(event).await;
    }
}
