//! UIs: each runs for as long as whoever asked for it holds it, and ends with the daemon at the latest.

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

/// UIs at once: each is a process here, and a container with Airflow in it.
const MOST: usize = 4;
/// What nobody has read yet of what a UI has said.
const UNREAD: usize = 64;
/// Between two looks whether the app is still there, and the environment.
const LOOK: Duration = Duration::from_secs(5);

/// The UIs that there are.
pub struct Uis {
    runtime: Runtime,
    free: Arc<Semaphore>,
    open: Mutex<BTreeMap<Uuid, Ui>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// What there is to tell of a UI.
pub enum UiEvent {
    Progress(UiProgress),
    Ready(UiReady),
    /// The last thing that there is to tell.
    Failed(Error),
}

/// A UI, which ends when this is dropped.
pub struct OpenUi {
    events: mpsc::Receiver<UiEvent>,
    _close: DropGuard,
}

impl OpenUi {
    /// Waits for more; nothing comes after its end.
    pub async fn next(&mut self) -> Option<UiEvent> {
        self.events.recv().await
    }
}

impl Uis {
    pub fn new(runtime: Runtime) -> Self {
        let free = Arc::new(Semaphore::new(MOST));
        Self { runtime, free, open: Mutex::default(), tracker: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// Ends all of them, and returns when they are gone.
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
    /// The UIs that run, start or end.
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
            // A new version of the daemon makes it when it deploys the environment anew.
            return Err(Error::EnvironmentNotReady(name.clone(), Some("its Python runtime is being made".to_owned())));
        }
        let permit = uis.free.clone().try_acquire_owned().map_err(|_| Error::TooManyUis(MOST))?;
        let server = modal.server(*target, config)?;
        let process = uis.runtime.start_ui(name, config, &server)?;
        let id = Uuid::now_v7();
        let (state, started_at) = (UiState::Starting, base.now());
        uis.open().insert(id, Ui { id, environment: name.clone(), state, started_at });
        let (sender, events) = mpsc::channel(UNREAD);
        // At once, so that whoever asked knows its id.
        let message = format!("Starting the UI of environment {name}");
        let _ = sender.try_send(UiEvent::Progress(UiProgress { id, message }));
        let close = uis.stop.child_token();
        let running = RunningUi { deployed: self.clone(), id, app: None, sender, _permit: permit };
        uis.tracker.spawn(running.supervise(process, close.clone()));
        Ok(OpenUi { events, _close: close.drop_guard() })
    }
}

/// What belongs to one UI from its start to its end.
struct RunningUi {
    deployed: Deployed,
    id: Uuid,
    /// The id of its app, once it has one.
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
            // Modal would notice by itself, some minutes later.
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

    /// Tells what happens until the UI fails.
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

    /// Why there is no sense in going on, if there is none.
    async fn failure(&self) -> Option<Error> {
        if let Err(error) = self.deployed.airflow.registry.deployed_environment(self.deployed.name()).await {
            return Some(error);
        }
        match self.deployed.client.is_app_running(self.app.as_ref()?).await {
            Ok(true) => None,
            Ok(false) => Some(self.failed("its app was stopped on Modal".to_owned())),
            Err(error) => {
                // Not a reason to end it: its own process will fail if this lasts.
                tracing::debug!(error = chain(&error), "it is not known whether the app of a UI runs");
                None
            }
        }
    }

    fn failed(&self, reason: String) -> Error {
        Error::UiFailed(self.deployed.name().clone(), reason)
    }

    async fn tell(&self, event: UiEvent) {
        // Who asked for it may have gone; then it ends anyway.
        let _ = self.sender.send(event).await;
    }
}
