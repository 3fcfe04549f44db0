//! Supervision of a container's process, however it was started.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use futures::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{process::Child, sync::mpsc};

use super::memory;
use crate::state::StopSignal;

/// A running process that leads a process group of its own.
pub struct Process {
    pub leader: Pid,
    /// How it ended, such as "exited with code 1". After that, the system may reuse the process id.
    pub ended: BoxFuture<'static, String>,
}

impl Process {
    /// A child of this process; `None` if it was waited for already.
    pub fn of_child(mut child: Child) -> Option<Self> {
        let leader = Pid::from_raw(i32::try_from(child.id()?).ok()?)?;
        let ended = async move {
            match child.wait().await {
                Ok(status) => describe(status),
                Err(error) => format!("was lost ({error})"),
            }
        };
        Some(Self { leader, ended: Box::pin(ended) })
    }

    /// Waits for the end, passes signals on, and kills the process if it uses more than `memory_limit` MiB. The rest of
    /// the process group is killed, also if this future is dropped.
    pub async fn supervise(mut self, signals: &mut mpsc::UnboundedReceiver<StopSignal>, memory_limit: u32) -> String {
        let exceeds = memory::exceeds(self.leader, memory_limit);
        tokio::pin!(exceeds);
        let mut exceeded = false;
        loop {
            tokio::select! {
                how = &mut self.ended => {
                    return if exceeded { format!("exceeded its memory limit of {memory_limit} MiB") } else { how };
                }
                Some(signal) = signals.recv() => match signal {
                    // Only the SDK's process gets the signal, as on Modal; its children are its own responsibility.
                    StopSignal::Interrupt => self.report(kill_process(self.leader, Signal::INT)),
                    StopSignal::Terminate => self.report(kill_process(self.leader, Signal::TERM)),
                    StopSignal::Kill => self.kill(),
                },
                () = &mut exceeds, if !exceeded => {
                    exceeded = true;
                    self.kill();
                }
            }
        }
    }

    /// Kills the process group.
    fn kill(&self) {
        self.report(kill_process_group(self.leader, Signal::KILL));
    }

    fn report(&self, outcome: rustix::io::Result<()>) {
        match outcome {
            // All of them have ended.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                tracing::warn!(%error, pid = self.leader.as_raw_nonzero(), "a container could not be signalled");
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a process ended, as text that follows "the container".
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
