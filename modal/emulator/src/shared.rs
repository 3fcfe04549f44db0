//! What all parts of the server share: the state behind its lock, the store, and the folders.

use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    counts::Counts,
    endpoints::ports::Endpoints,
    error::Error,
    faults::Faults,
    files::Files,
    images::builds::Images,
    logs::Logs,
    options::Options,
    state::{Now, State},
    store::{Pending, Store},
    streams::Streams,
    subscriptions::Subscriptions,
    token::Token,
    views::Views,
    volumes::Volumes,
    web::Site,
};

/// The server's parts. The state's lock is never held across an `await`.
pub struct Shared {
    pub options: Options,
    /// Where clients and containers connect, as `MODAL_SERVER_URL`.
    pub server_url: String,
    pub files: Files,
    pub volumes: Volumes,
    pub views: Views,
    pub logs: Logs,
    pub faults: Faults,
    pub token: Token,
    pub counts: Counts,
    pub streams: Streams,
    pub endpoints: Endpoints,
    pub images: Images,
    /// The URLs for what travels over HTTP.
    pub site: Site,
    /// Canceled when the server stops: requests that wait or stream end.
    pub close_streams: CancellationToken,
    state: Mutex<State>,
    store: Store,
    /// The requests that wait for a change.
    subscriptions: Subscriptions,
    /// Wakes the driver.
    wake: Notify,
}

impl Shared {
    pub fn new(options: Options, server_url: String, site: Site, token: Token, state: State, store: Store) -> Self {
        let volumes = Volumes::new(options.data_dir.join("volumes"));
        Self {
            faults: Faults::default(),
            token,
            counts: Counts::default(),
            logs: Logs::new(options.data_dir.join("logs")),
            files: site.files().clone(),
            views: Views::new(&options, volumes.clone()),
            volumes,
            endpoints: Endpoints::default(),
            streams: Streams::new(options.data_dir.join("streams")),
            options,
            server_url,
            images: Images::default(),
            site,
            close_streams: CancellationToken::new(),
            state: Mutex::new(state),
            store,
            subscriptions: Subscriptions::default(),
            wake: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Transitions check before they change anything, so a panic in one leaves a state that can be used.
        self.state.lock()
    }

    /// Reads the state.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.lock())
    }

    /// Makes a transition; returns when its changes are durable.
    pub async fn change<T>(&self, transition: impl FnOnce(&mut State, Now) -> Result<T, Error>) -> Result<T, Error> {
        let (outcome, pending) = self.apply(transition);
        pending.committed().await?;
        outcome
    }

    /// Makes a transition without waiting until its changes are durable.
    pub fn change_soon<T>(&self, transition: impl FnOnce(&mut State, Now) -> T) -> T {
        let (outcome, _) = self.apply(transition);
        outcome
    }

    fn apply<T>(&self, transition: impl FnOnce(&mut State, Now) -> T) -> (T, Pending) {
        let mut state = self.lock();
        let outcome = transition(&mut state, Now::read());
        // Under the lock, so that changes reach the store in the order in which they were made.
        let pending = self.store.queue(state.take_changes());
        let notice = state.take_notice();
        drop(state);
        if !notice.is_empty() {
            self.subscriptions.notify(&notice);
            self.wake.notify_one();
        }
        (outcome, pending)
    }

    /// Tries a transition now, and after each change of the object `id`, until it returns a value; `None` if that takes
    /// longer than `until`.
    pub async fn wait_for<T>(
        &self,
        id: &str,
        until: Option<Instant>,
        mut attempt: impl FnMut(&mut State, Now) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        let mut subscription = self.subscriptions.subscribe(id);
        loop {
            let (outcome, pending) = self.apply(&mut attempt);
            if let Some(found) = outcome? {
                pending.committed().await?;
                return Ok(Some(found));
            }
            let time_is_up = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = subscription.changed() => {}
                () = time_is_up => return Ok(None),
                () = self.close_streams.cancelled() => return Err(Error::ShuttingDown),
            }
        }
    }

    /// A subscription to large changes, such as the start or end of apps and containers; not to those of every call.
    pub fn subscribe_large(&self) -> watch::Receiver<()> {
        self.subscriptions.subscribe_large()
    }

    /// Returns when the state may have changed since the last time.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Returns when everything changed so far is durable.
    pub async fn synced(&self) -> Result<(), Error> {
        Ok(self.store.barrier().committed().await?)
    }

    /// Waits until everything changed so far is durable, and logs a failure.
    pub async fn flush(&self) {
        if let Err(error) = self.synced().await {
            tracing::error!(%error, "the last changes could not be saved");
        }
    }

    /// Closes the store after everything in it is durable.
    pub async fn close(self) {
        self.store.close().await;
    }
}
