//! Containers: processes that run the SDK's own entry point.

mod code;
mod launch;
mod reaper;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::ExitStatus,
    sync::{Mutex, PoisonError},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{process::Child, sync::mpsc};

pub use self::{launch::TASK_HEADER, reaper::kill_left_overs};
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
    signals: mpsc::UnboundedReceiver<StopSignal>,
) {
    let app_id = shared.read(|state| state.tasks.get(&task_id).map(|task| task.definition.app_id.clone()));
    let log = shared.options.log_path(&app_id.unwrap_or_default(), &task_id);
    let how = match launch::launch(shared, &task_id, &log).await {
        Ok(child) => {
            tracing::debug!(task.id = task_id, "container started");
            supervise(child, signals).await
        }
        Err(error) => {
            tracing::warn!(task.id = task_id, error = &error as &dyn std::error::Error, "a container did not start");
            format!("could not be started ({})", launch::explain(&error))
        }
    };
    tracing::debug!(task.id = task_id, how, "container ended");
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

/// Waits for the end of a container and passes signals on. What it left running in its process group is killed.
async fn supervise(mut child: Child, mut signals: mpsc::UnboundedReceiver<StopSignal>) -> String {
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            Some(signal) = signals.recv() => {
                match (signal, leader) {
                    // Only the SDK's process is asked to end, as on Modal; what it started is its own business.
                    (StopSignal::Interrupt, Some(leader)) => report(leader, kill_process(leader, Signal::INT)),
                    (StopSignal::Kill, Some(leader)) => report(leader, kill_process_group(leader, Signal::KILL)),
                    // It was waited for already.
                    (_, None) => {}
                }
            }
        }
    };
    if let Some(leader) = leader {
        report(leader, kill_process_group(leader, Signal::KILL));
    }
    match status {
        Ok(status) => describe(status),
        Err(error) => format!("was lost ({error})"),
    }
}

fn report(leader: Pid, outcome: rustix::io::Result<()>) {
    match outcome {
        // Nobody is left.
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => tracing::warn!(%error, pid = leader.as_raw_nonzero(), "a container could not be signalled"),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
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
