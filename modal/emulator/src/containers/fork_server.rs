//! Fork servers: processes that have imported the SDK and fork containers, which so start in the time of a fork instead
//! of that of the imports. For functions with memory snapshots they have imported the module of the function, too.
//! Functions that would import the same in the same surroundings share one.

use std::{
    collections::{BTreeSet, HashMap},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use modal_proto::VolumeMount;
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
    process::{Process, describe},
    spec::{Spec, Variables},
};
use crate::{error::Error, images::Environment, shared::Shared, state::Definition};

/// How long a server without containers stays. It holds what a module imported, so not for ever; and a function
/// that is called by the minute or the quarter of an hour should find it.
const SNAPSHOT_IDLE_LIMIT: Duration = Duration::from_secs(20 * 60);

/// How long one stays that has imported the SDK only, which is done in a moment.
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

/// A digest of all that the imports of a container can depend on. Containers with the same key are forked from the same
/// server; those of different apps never are, as what a server prints goes to the log of one app.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ForkServerKey([u8; 32]);

impl ForkServerKey {
    /// `variables` are those that all containers of the definition have.
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
    /// Its own, under which it has views of Volumes and prints.
    pub id: String,
    pub command: Command,
    /// What its imports print.
    pub output: Output,
    /// Its private folder, removed with it.
    pub folder: PathBuf,
    /// Whether it imports the module of a function, as a snapshot would have it.
    pub is_snapshot: bool,
}

/// Asks for a container of a spec. Not bounded: as many as there are containers being started.
struct Request {
    spec: PathBuf,
    forked: oneshot::Sender<Process>,
}

/// What a server says.
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
    /// `None`: it cannot; the container has to be started in the ordinary way.
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
        // One at a time: who comes second finds the server of the first.
        let _alone = self.starting.lock().await;
        if let Err(mpsc::error::SendError(request)) = self.ask(key, definition_id, request) {
            let requests = start().await?.start(shared, definition_id)?;
            requests.send(request).ok()?;
            let running = Running { requests, definitions: [definition_id.to_owned()].into() };
            self.servers.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), running);
        }
        process.await.ok()
    }

    /// Lets go of servers that have ended, and of those none of whose definitions is live any more: they end with the
    /// last of their containers.
    pub fn close_gone(&self, shared: &Shared) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if !servers.is_empty() {
            shared.read(|state| {
                servers.retain(|_, server| {
                    !server.requests.is_closed() && server.definitions.iter().any(|id| state.is_live_definition(id))
                });
            });
        }
    }

    /// Gives the request back if there is no server, or none any more.
    fn ask(
        &self,
        key: &ForkServerKey,
        definition_id: &str,
        request: Request,
    ) -> Result<(), mpsc::error::SendError<Request>> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        // A definition whose surroundings have changed (a Secret, a Volume) does not need the server that it had.
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
            private::open_closed(&folder);
            if let Err(error) = tokio::fs::remove_dir_all(&folder).await {
                tracing::debug!(%error, "the folder of a fork server was gone");
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

    /// Serves until it has been idle for long, or the process is gone, or nobody can ask any more.
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut is_wanted = true;
        loop {
            let idle = self.waiting.is_empty() && self.running.is_empty();
            if idle && !is_wanted {
                break;
            }
            tokio::select! {
                request = requests.recv(), if is_wanted => match request {
                    Some(request) => self.ask(request).await,
                    None => is_wanted = false,
                },
                line = self.messages.next_line(), if self.refused.is_none() => match line {
                    Ok(Some(line)) => self.hear(&line),
                    Ok(None) | Err(_) => break,
                },
                () = tokio::time::sleep(self.idle_limit), if idle => break,
            }
        }
        tracing::debug!(definition.id = self.definition_id, "a fork server ended");
    }

    async fn ask(&mut self, request: Request) {
        // Dropping the request says no.
        if self.refused.is_some() {
            return;
        }
        let line = format!("{}\n", request.spec.display());
        match self.requests.write_all(line.as_bytes()).await {
            Ok(()) => drop(self.waiting.insert(request.spec, request.forked)),
            // It is gone; that is noticed by its messages.
            Err(error) => tracing::debug!(%error, "a fork server does not listen"),
        }
    }

    fn hear(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Message::Ready { ready }) => {
                tracing::debug!(definition.id = self.definition_id, ready, "a fork server has its imports");
            }
            Ok(Message::Refused { refused }) => {
                tracing::info!(definition.id = self.definition_id, reason = refused, "containers are not forked");
                self.refused = Some(refused);
                self.waiting.clear();
            }
            Ok(Message::Started { started, spec }) => self.started(started, &spec),
            Ok(Message::Ended { ended, status }) => {
                if let Some(running) = self.running.remove(&ended) {
                    // Nobody listens any more if the server is being torn down.
                    let _ = running.send(describe(ExitStatus::from_raw(status)));
                }
            }
            Err(error) => tracing::error!(%error, "a fork server says something strange"),
        }
    }

    fn started(&mut self, pid: i32, spec: &Path) {
        let Some(leader) = Pid::from_raw(pid) else { return };
        let (end, ended) = oneshot::channel();
        let ended = Box::pin(async move {
            ended.await.unwrap_or_else(|_| {
                // Without the server that forked it nobody can tell how it ends, so it ends now.
                if let Err(error) = kill_process_group(leader, Signal::KILL) {
                    tracing::debug!(%error, "a container was gone with its fork server");
                }
                "was lost with its fork server".to_owned()
            })
        });
        self.running.insert(pid, end);
        let asked = self.waiting.remove(spec);
        if let Some(Err(_)) = asked.map(|forked| forked.send(Process { leader, ended })) {
            // It was stopped before it was there, and nobody else knows that it is.
            tracing::debug!(pid, "a container comes too late");
            if let Err(error) = kill_process_group(leader, Signal::KILL) {
                tracing::debug!(%error, pid, "it has ended already");
            }
        }
    }
}
