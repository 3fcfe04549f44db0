//! Containers: processes that run the SDK's own entry point.

mod code;
mod fork_server;
mod launch;
mod memory;
mod process;
mod reaper;
mod spec;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::{Mutex, PoisonError},
};

use tokio::sync::mpsc;

use self::fork_server::ForkServers;
pub use self::{reaper::kill_left_overs, spec::TASK_HEADER};
use crate::{
    files::blocking,
    shared::Shared,
    state::{StopSignal, TaskExit},
};

/// How much of a container's output goes into an error message.
const LAST_OUTPUT_BYTES: u64 = 4_000;

/// The ways to the running containers.
#[derive(Default)]
pub struct Containers {
    signals: Mutex<HashMap<String, mpsc::UnboundedSender<StopSignal>>>,
    fork_servers: ForkServers,
}

impl Containers {
    /// Sends a signal to a container, if it still runs.
    pub fn signal(&self, task_id: &str, signal: StopSignal) {
        let signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = signals.get(task_id) {
            // A closed channel means that the process is gone, which is what the signal is for.
            let _ = sender.send(signal);
        }
    }

    /// Opens the way to a container that is about to be started.
    pub fn begin(&self, task_id: &str) -> mpsc::UnboundedReceiver<StopSignal> {
        // Not bounded: a container gets two signals at most.
        let (sender, receiver) = mpsc::unbounded_channel();
        self.signals.lock().unwrap_or_else(PoisonError::into_inner).insert(task_id.to_owned(), sender);
        receiver
    }

    fn remove(&self, task_id: &str) {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner).remove(task_id);
    }
}

/// Runs the container of a task from start to end, and books its end.
pub async fn run(
    shared: &Shared,
    containers: &Containers,
    task_id: String,
    mut signals: mpsc::UnboundedReceiver<StopSignal>,
) {
    let definition = shared.read(|state| state.tasks.get(&task_id).map(|task| task.definition.clone()));
    let Some(definition) = definition else { return };
    let log = shared.options.log_path(&definition.app_id, &task_id);
    let limit = definition.function.resources.as_ref().map_or(0, |resources| resources.memory_mb_max);
    let launched = tokio::select! {
        launched = launch::launch(shared, containers, &task_id, &log) => Some(launched),
        // Its fork server may take its time.
        Some(_) = signals.recv() => None,
    };
    let how = match launched {
        Some(Ok(process)) => {
            tracing::debug!(task.id = task_id, "container started");
            tokio::select! {
                how = process.supervise(&mut signals, limit) => how,
                () = shared.views.commit_in_background(&task_id) => unreachable!("it goes on for ever"),
            }
        }
        Some(Err(error)) => {
            tracing::warn!(task.id = task_id, error = &error as &dyn std::error::Error, "a container did not start");
            format!("could not be started ({})", launch::explain(&error))
        }
        None => "was stopped before it had started".to_owned(),
    };
    tracing::debug!(task.id = task_id, how, "container ended");
    shared.views.detach(&task_id).await;
    let folder = shared.options.container_folder(&task_id);
    let last_output = match blocking(move || Ok(clear(&folder, &log))).await {
        Ok(last_output) => last_output,
        // The runtime is being torn down; the next start does the rest.
        Err(_) => return,
    };
    let exit = TaskExit { how, last_output };
    shared.change_soon(|state, now| state.task_exited(&task_id, &exit, now));
    containers.remove(&task_id);
}

/// Ends what a container left running, wherever it went, so that nothing of it overlaps with the next delivery of its
/// inputs; removes its private folder; and returns the end of what it printed.
fn clear(folder: &Path, log: &Path) -> String {
    kill_left_overs(folder);
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, folder = %folder.display(), "the folder of a container could not be removed");
    }
    last_output(log)
}

fn last_output(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_OUTPUT_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&tail).into_owned())
    };
    // Without a log there is nothing to tell; that it could not be started is told already.
    read().unwrap_or_default()
}
