//! Fork servers: processes that have imported the SDK and fork containers, which saves each container the imports. For
//! functions with memory snapshots they have imported the module of the function, too. Functions share a server if they
//! would import the same modules in the same environment.

use std::{
    collections::{BTreeSet, HashMap},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use modal_proto::VolumeMount;
use parking_lot::Mutex;
use prost::Message as _;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::{
    output::Output,
    private,
    spec::{Spec, Variables},
    supervisor::{Process, describe},
};
use crate::{error::Error, images::Environment, shared::Shared, state::Definition};

/// How long a server with a function's module is kept without containers. It uses memory, so it cannot stay forever;
/// but a function that is called every quarter of an hour should find it.
const SNAPSHOT_IDLE_LIMIT: Duration = Duration::from_secs(20 * 60);

/// How long a server is kept that has imported the SDK only, which does not take long.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// The running fork servers.
#[derive(Default)]
pub struct ForkServers {
    servers: Mutex<HashMap<ForkServerKey, Running>>,
    starting: tokio::sync::Mutex<()>,
}

struct Running {
    requests: mpsc::UnboundedSender<Request>,
    /// The definitions whose containers it forks.
    definitions: BTreeSet<String>,
}

/// A digest of everything that the imports of a container can depend on. Containers with the same key are forked from
/// the same server. Containers of different apps never are, because the output of a server goes to the log of one app.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ForkServerKey([u8; 32]);

impl ForkServerKey {
    /// `variables` are those of all containers of the definition.
    pub fn new(
        definition: &Definition,
        image: &Environment,
        spec: &Spec,
        mounts: &[VolumeMount],
        variables: &Variables,
    ) -> Result<Self, Error> {
        let mounts: Vec<_> = mounts.iter().map(VolumeMount::encode_to_vec).collect();
        let parts = (&definition.app_id, &image.python, &spec.tree, &spec.directory, &spec.preload, mounts, variables);
        let parts = (parts, &spec.private);
        let encoded = serde_json::to_vec(&parts)
            .map_err(|error| Error::io("write", "a container's description")(std::io::Error::other(error)))?;
        Ok(Self(Sha256::digest(encoded).into()))
    }
}

/// What a fork server is started with.
pub struct ForkServerStart {
    /// Its own id, for its views of Volumes and its output.
    pub id: String,
    pub command: Command,
    /// The output of its imports.
    pub output: Output,
    /// Its private folder, removed with it.
    pub folder: PathBuf,
    /// Whether it imports the module of a function, as a snapshot would have it.
    pub is_snapshot: bool,
}

/// A request for a container. Their number is not bounded: there is one for each container that is being started.
struct Request {
    spec: PathBuf,
    forked: oneshot::Sender<Process>,
}

/// A message of a server.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase", untagged)]
enum Message {
    Ready { ready: bool },
    Refused { refused: String },
    Started { started: i32, spec: PathBuf },
    Ended { ended: i32, status: i32 },
}

impl ForkServers {
    /// Forks the container of a spec from the server of its key. `start` prepares that server if it does not run.
    /// Returns `None` if the server cannot fork; then the container has to be started without it.
    pub async fn fork(
        &self,
        shared: &Arc<Shared>,
        key: &ForkServerKey,
        definition_id: &str,
        spec: &Path,
        start: impl AsyncFnOnce() -> Option<ForkServerStart>,
    ) -> Option<Process> {
        let (forked, process) = oneshot::channel();
        let request = Request { spec: spec.to_owned(), forked };
        let Err(mpsc::error::SendError(request)) = self.ask(key, definition_id, request) else {
            return process.await.ok();
        };
        // One at a time: the second caller finds the server of the first.
        let _alone = self.starting.lock().await;
        if let Err(mpsc::error::SendError(request)) = self.ask(key, definition_id, request) {
            let requests = start().await?.start(shared, definition_id)?;
            requests.send(request).ok()?;
            let running = Running { requests, definitions: [definition_id.to_owned()].into() };
            self.servers.lock().insert(key.clone(), running);
        }
        process.await.ok()
    }

    /// Drops servers that have ended, and those without a live definition: they end with their last container.
    pub fn close_unused(&self, shared: &Shared) {
        let mut servers = self.servers.lock();
        if !servers.is_empty() {
            shared.read(|state| {
                servers.retain(|_, server| {
                    !server.requests.is_closed() && server.definitions.iter().any(|id| state.is_live_definition(id))
                });
            });
        }
    }

    /// Sends a request to the server of a key. Returns the request if that server does not run.
    fn ask(
        &self,
        key: &ForkServerKey,
        definition_id: &str,
        request: Request,
    ) -> Result<(), mpsc::error::SendError<Request>> {
        let mut servers = self.servers.lock();
        // A definition whose environment has changed (a Secret, a Volume) does not need its earlier server.
        servers.retain(|other, server| {
            other == key || !(server.definitions.remove(definition_id) && server.definitions.is_empty())
        });
        match servers.get_mut(key) {
            Some(server) => {
                server.definitions.insert(definition_id.to_owned());
                server.requests.send(request)
            }
            None => Err(mpsc::error::SendError(request)),
        }
    }
}

impl ForkServerStart {
    fn start(self, shared: &Arc<Shared>, definition_id: &str) -> Option<mpsc::UnboundedSender<Request>> {
        let idle_limit = if self.is_snapshot { SNAPSHOT_IDLE_LIMIT } else { IDLE_LIMIT };
        let server = Server::start(self.command, definition_id, idle_limit)?;
        let (requests, receiver) = mpsc::unbounded_channel();
        let ended = CancellationToken::new();
        tokio::spawn(self.output.pump(shared.clone(), ended.clone()));
        let (shared, id, folder) = (shared.clone(), self.id, self.folder);
        tokio::spawn(async move {
            server.run(receiver).await;
            ended.cancel();
            shared.views.detach(&id).await;
            private::unlock_work_folders(&folder);
            if let Err(error) = tokio::fs::remove_dir_all(&folder).await {
                tracing::debug!(%error, "the folder of a fork server could not be removed");
            }
        });
        Some(requests)
    }
}

struct Server {
    definition_id: String,
    /// Killed when this is dropped.
    _process: Child,
    requests: ChildStdin,
    messages: Lines<BufReader<ChildStdout>>,
    waiting: HashMap<PathBuf, oneshot::Sender<Process>>,
    running: HashMap<i32, oneshot::Sender<String>>,
    /// Why it does not fork.
    refused: Option<String>,
    idle_limit: Duration,
}

impl Server {
    fn start(mut command: Command, definition_id: &str, idle_limit: Duration) -> Option<Self> {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut process = match started {
            Ok(process) => process,
            Err(error) => {
                tracing::warn!(%error, definition.id = definition_id, "a fork server could not be started");
                return None;
            }
        };
        let (requests, messages) = (process.stdin.take()?, process.stdout.take()?);
        Some(Self {
            definition_id: definition_id.to_owned(),
            _process: process,
            requests,
            messages: BufReader::new(messages).lines(),
            waiting: HashMap::new(),
            running: HashMap::new(),
            refused: None,
            idle_limit,
        })
    }

    /// Serves until it has been idle for long, its process has ended, or no more requests can come.
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut accepts = true;
        loop {
            let idle = self.waiting.is_empty() && self.running.is_empty();
            if idle && !accepts {
                break;
            }
            tokio::select! {
                request = requests.recv(), if accepts => match request {
                    Some(request) => self.ask(request).await,
                    None => accepts = false,
                },
                line = self.messages.next_line(), if self.refused.is_none() => match line {
                    Ok(Some(line)) => self.handle_message(&line),
                    Ok(None) | Err(_) => break,
                },
                () = tokio::time::sleep(self.idle_limit), if idle => break,
            }
        }
        tracing::debug!(definition.id = self.definition_id, "a fork server ended");
    }

    async fn ask(&mut self, request: Request) {
        // Dropping the request refuses it.
        if self.refused.is_some() {
            return;
        }
        let line = format!("{}\n", request.spec.display());
        match self.requests.write_all(line.as_bytes()).await {
            Ok(()) => drop(self.waiting.insert(request.spec, request.forked)),
            // It has ended, which the end of its messages shows.
            Err(error) => tracing::debug!(%error, "a fork server does not read its input"),
        }
    }

    fn handle_message(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Message::Ready { ready }) => {
                tracing::debug!(definition.id = self.definition_id, ready, "a fork server has finished its imports");
            }
            Ok(Message::Refused { refused }) => {
                tracing::info!(definition.id = self.definition_id, reason = refused, "containers are not forked");
                self.refused = Some(refused);
                self.waiting.clear();
            }
            Ok(Message::Started { started, spec }) => self.started(started, &spec),
            Ok(Message::Ended { ended, status }) => {
                if let Some(running) = self.running.remove(&ended) {
                    // The receiver is dropped while the server shuts down.
                    let _ = running.send(describe(ExitStatus::from_raw(status)));
                }
            }
            Err(error) => tracing::error!(%error, "a fork server sent an invalid message"),
        }
    }

    fn started(&mut self, pid: i32, spec: &Path) {
        let Some(leader) = Pid::from_raw(pid) else { return };
        let (end, ended) = oneshot::channel();
        let ended = Box::pin(async move {
            ended.await.unwrap_or_else(|_| {
                // Only the server that forked it could report its end, so it is killed.
                if let Err(error) = kill_process_group(leader, Signal::KILL) {
                    tracing::debug!(%error, "a container ended with its fork server");
                }
                "was lost with its fork server".to_owned()
            })
        });
        self.running.insert(pid, end);
        let asked = self.waiting.remove(spec);
        if let Some(Err(_)) = asked.map(|forked| forked.send(Process { leader, ended })) {
            // It was stopped before it was forked, and nobody else knows of it.
            tracing::debug!(pid, "a container was forked after it was stopped");
            if let Err(error) = kill_process_group(leader, Signal::KILL) {
                tracing::debug!(%error, pid, "it has ended already");
            }
        }
    }
}
