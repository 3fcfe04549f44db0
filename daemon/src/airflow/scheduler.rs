//! Communication with the scheduler: wake-ups and commands, both through the environment's Dict.
//!
//! A command is an entry `command:{id}`; the tick that carries it out answers with `reply:{id}` after its commit. The
//! Dict keeps both, so neither a crash of the daemon nor one of a tick loses a command.

use std::time::Duration;

use modal_client::{Dict, FunctionCall};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Deployed, command_id};
use crate::{
    error::{Error, Reason, Result, Subject},
    report::chain,
};

/// Longest wait for a reply: a cold start of the scheduler, a tick under way and the command's own tick.
const REPLY_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, Deserialize)]
struct Reply {
    ok: bool,
    error: Option<String>,
    reason: Option<Reason>,
    #[serde(default)]
    result: Value,
}

impl Deployed {
    /// Runs a scheduler tick and waits until it is done.
    pub async fn tick(&self) -> Result<()> {
        self.refresh().await
    }

    /// Has the scheduler scan the DAG folder, and waits until it is done.
    pub(super) async fn refresh(&self) -> Result<()> {
        let _: Value = self.command((Subject::Dag, "refresh"), json!({})).await?;
        Ok(())
    }

    /// Notifies the scheduler of changed DAG files.
    pub(crate) async fn notify_dags_changed(&self) -> Result<()> {
        self.using_objects(|| self.wake("upload")).await.map(drop)
    }

    /// Wakes the scheduler: sets the mark that a running tick checks before it ends, and starts a tick.
    async fn wake(&self, reason: &str) -> Result<FunctionCall> {
        let mark = json!({"reason": reason, "at": self.seconds()});
        self.dict().await?.put_if_absent("wake", &mark).await?;
        Ok(self.run_tick().await?.spawn((reason,)).await?)
    }

    /// Has the scheduler carry out a command, and waits for its reply.
    pub(super) async fn command<T: DeserializeOwned>(
        &self,
        (subject, kind): (Subject, &str),
        arguments: Value,
    ) -> Result<T> {
        let id = command_id::next().to_string();
        let mut command = json!({"id": id, "kind": kind, "at": self.seconds()});
        if let (Some(command), Value::Object(arguments)) = (command.as_object_mut(), arguments) {
            command.extend(arguments);
        }
        let key = format!("command:{id}");
        let send = || async {
            self.dict().await?.put(&key, &command).await?;
            self.wake(kind).await
        };
        let tick = self.using_objects(send).await?;
        let Some(reply) = wait(&self.dict().await?, &format!("reply:{id}"), &tick).await? else {
            return Err(self.scheduler_failure(Error::SchedulerSilent(REPLY_LIMIT.as_secs())).await);
        };
        let refused = |message| Error::Refused { subject, reason: reply.reason.unwrap_or(Reason::Invalid), message };
        if !reply.ok {
            return Err(refused(reply.error.unwrap_or_default()));
        }
        serde_json::from_value(reply.result)
            .map_err(|_| refused(format!("the reply to {kind:?} does not have the expected form")))
    }

    /// Returns the time in seconds since the epoch.
    fn seconds(&self) -> f64 {
        self.airflow.base.now().timestamp_millis() as f64 / 1000.0
    }
}

/// Waits for a reply; `None` if the tick that should give it fails, or after the time limit.
async fn wait(dict: &Dict, key: &str, tick: &FunctionCall) -> Result<Option<Reply>> {
    let replied = async {
        loop {
            if let Some(reply) = dict.pop::<Reply>(key).await? {
                return Ok::<_, Error>(reply);
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let failed = async {
        match tick.wait::<Value>(REPLY_LIMIT).await {
            // The tick has done its work, or left it to another tick.
            Ok(_) => tokio::time::sleep(REPLY_LIMIT).await,
            Err(error) => tracing::warn!(error = chain(&error), "a tick failed that was waited for"),
        }
    };
    tokio::select! {
        reply = timeout(REPLY_LIMIT, replied) => reply.ok().transpose(),
        // The reply may have arrived just before.
        () = failed => Ok(dict.pop(key).await?),
    }
}
