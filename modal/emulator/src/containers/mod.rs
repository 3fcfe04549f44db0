//! Containers: processes that run the SDK's own entry point.

mod code;
mod fork_server;
mod launch;
mod memory;
mod output;
mod port;
mod private;
mod spec;
mod supervisor;

use std::{collections::HashMap, fs, sync::Arc};

use parking_lot::Mutex;
use rustix::process::Pid;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::fork_server::ForkServers;
pub use self::spec::TASK_HEADER;
use crate::{
    error::{Error, explain},
    files::blocking,
    images,
    process::kill_container,
    shared::Shared,
    state::{Definition, StopSignal, TaskExit},
};

/// The running containers.
#[derive(Default)]
pub struct Containers {
    signals: Mutex<HashMap<String, mpsc::UnboundedSender<StopSignal>>>,
    fork_servers: ForkServers,
}

impl Containers {
    /// Sends a signal to a container, if it still runs.
    pub fn signal(&self, task_id: &str, signal: StopSignal) {
        let signals = self.signals.lock();
        if let Some(sender) = signals.get(task_id) {
            // A closed channel means that the process has ended already.
            let _ = sender.send(signal);
        }
    }

    /// Registers a container that is about to be started; returns its signals.
    pub fn begin(&self, task_id: &str) -> mpsc::UnboundedReceiver<StopSignal> {
        // Not bounded: a container gets two signals at most.
        let (sender, receiver) = mpsc::unbounded_channel();
        self.signals.lock().insert(task_id.to_owned(), sender);
        receiver
    }

    /// Closes fork servers that are not needed any more.
    pub fn close_unused(&self, shared: &Shared) {
        self.fork_servers.close_unused(shared);
    }

    fn remove(&self, task_id: &str) {
        self.signals.lock().remove(task_id);
    }
}

/// Runs the container of a task from start to end, and records its end.
pub async fn run(
    shared: &Arc<Shared>,
    containers: &Containers,
    task_id: String,
    mut signals: mpsc::UnboundedReceiver<StopSignal>,
) {
    let definition = shared.read(|state| state.tasks.get(&task_id).map(|task| task.definition.clone()));
    let Some(definition) = definition else { return };
    let exit = match launch::prepare(shared, &definition, &task_id) {
        Err(error) => TaskExit { how: not_started(&task_id, &error), last_output: String::new() },
        Ok(output) => {
            let (tail, ended) = (output.tail(), CancellationToken::new());
            let pump = tokio::spawn(output.pump(shared.clone(), ended.clone()));
            let (how, leader) = live(shared, containers, &definition, &task_id, &mut signals).await;
            clear(shared, &definition, &task_id, leader).await;
            // Its output is in the log before its end is reported.
            ended.cancel();
            if let Err(error) = pump.await {
                tracing::error!(%error, task.id = task_id, "the output of a container was lost");
            }
            TaskExit { how, last_output: tail.text() }
        }
    };
    tracing::debug!(task.id = task_id, how = exit.how, "container ended");
    for note in shared.change_soon(|state, now| state.task_exited(&task_id, &exit, now)) {
        output::log_crash(shared, &definition, &task_id, note);
    }
    containers.remove(&task_id);
    shared.logs.close_unused();
}

/// Starts the process of a container and waits for its end; returns how it ended, and its process if there was one.
async fn live(
    shared: &Arc<Shared>,
    containers: &Containers,
    definition: &Definition,
    task_id: &str,
    signals: &mut mpsc::UnboundedReceiver<StopSignal>,
) -> (String, Option<Pid>) {
    let launched = tokio::select! {
        launched = launch::launch(shared, containers, definition, task_id) => launched,
        // Its fork server may take long.
        Some(_) = signals.recv() => return ("was stopped before it had started".to_owned(), None),
    };
    let process = match launched {
        Ok(process) => process,
        Err(error) => return (not_started(task_id, &error), None),
    };
    let leader = process.leader;
    tracing::debug!(task.id = task_id, "container started");
    let limit = definition.function.resources.as_ref().map_or(0, |resources| resources.memory_mb_max);
    tokio::select! {
        how = process.supervise(signals, limit) => (how, Some(leader)),
        () = shared.views.commit_in_background(task_id) => unreachable!("it never returns"),
        () = port::await_server(shared, definition, task_id, leader) => unreachable!("it never returns"),
    }
}

fn not_started(task_id: &str, error: &Error) -> String {
    tracing::warn!(task.id = task_id, error = error as &dyn std::error::Error, "a container did not start");
    format!("could not be started ({})", explain(error))
}

/// Kills all processes that a container left, so that none overlaps with the next delivery of its inputs, and removes
/// its private folder.
async fn clear(shared: &Shared, definition: &Arc<Definition>, task_id: &str, leader: Option<Pid>) {
    shared.views.detach(task_id).await;
    let (folder, id) = (shared.options.containers_folder(), task_id.to_owned());
    let (options, definition) = (shared.options.clone(), definition.clone());
    let cleared = blocking(move || {
        kill_container(&folder, &id, leader);
        let own = folder.join(id);
        let written = own.join(private::WRITTEN);
        images::keep_written(&options, &definition, &written)
            .map_err(Error::io("keep", "what a step of an image wrote"))?;
        private::unlock_work_folders(&own);
        fs::remove_dir_all(own).map_err(Error::io("remove", "a container's folder"))
    });
    if let Err(error) = cleared.await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            task.id = task_id,
            "the cleanup after a container failed"
        );
    }
}
