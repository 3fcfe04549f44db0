//! Talking to the scheduler: wake-ups and commands, both through the environment's Dict.
//!
//! A command is an entry `command:{id}`; the tick that carries it out answers with `reply:{id}` after its commit. The
//! Dict keeps both, so neither a crash of the daemon nor one of a tick loses a command.

use std::time::Duration;

use airflow_serverless_api::environment::EnvironmentName;
use modal_client::{Client, Dict, FunctionCall};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Airflow, command_id};
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

impl Airflow {
    /// Has the scheduler look for what is due, and waits until it has.
    pub async fn tick(&self, environment: &EnvironmentName) -> Result<()> {
        self.refresh(environment).await
    }

    /// Makes the scheduler look again, now.
    pub(super) async fn wake_scheduler(&self, environment: &EnvironmentName, reason: &str) -> Result<()> {
        let client = self.client(environment).await?;
        let dict = client.dict(&environment.dict()).await?;
        self.wake(environment, (&client, &dict), reason).await.map(drop)
    }

    async fn wake(
        &self,
        environment: &EnvironmentName,
        (client, dict): (&Client, &Dict),
        reason: &str,
    ) -> Result<FunctionCall> {
        let mark = json!({"reason": reason, "at": self.base.now().timestamp_millis() as f64 / 1000.0});
        dict.put_if_absent("wake", &mark).await?;
        let tick = client.function(&environment.app(), "run_tick").await?;
        Ok(tick.spawn((reason,)).await?)
    }

    /// Has the scheduler carry out a command and waits for its reply.
    pub(super) async fn command<T: DeserializeOwned>(
        &self,
        environment: &EnvironmentName,
        command: (Subject, &str),
        arguments: Value,
    ) -> Result<T> {
        let client = self.client(environment).await?;
        self.command_by(&client, environment, command, arguments).await
    }

    pub(super) async fn command_by<T: DeserializeOwned>(
        &self,
        client: &Client,
        environment: &EnvironmentName,
        (subject, kind): (Subject, &str),
        arguments: Value,
    ) -> Result<T> {
        let dict = client.dict(&environment.dict()).await?;
        let id = command_id::next().to_string();
        let mut command = json!({"id": id, "kind": kind, "at": self.base.now().timestamp_millis() as f64 / 1000.0});
        if let (Some(command), Value::Object(arguments)) = (command.as_object_mut(), arguments) {
            command.extend(arguments);
        }
        dict.put(&format!("command:{id}"), &command).await?;
        let tick = self.wake(environment, (client, &dict), kind).await?;
        let key = format!("reply:{id}");
        let Some(reply) = wait(&dict, &key, &tick).await? else {
            return Err(self.scheduler_failure(environment, Error::SchedulerSilent(REPLY_LIMIT.as_secs())).await);
        };
        let refused = |message| Error::Refused { subject, reason: reply.reason.unwrap_or(Reason::Invalid), message };
        if !reply.ok {
            return Err(refused(reply.error.unwrap_or_default()));
        }
        serde_json::from_value(reply.result)
            .map_err(|_| refused(format!("the reply to {kind:?} does not have the expected form")))
    }
}

/// Waits for a reply; none comes if the tick fails that was to give it, or in time.
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
            // It has done its work, or left it to another one.
            Ok(_) => tokio::time::sleep(REPLY_LIMIT).await,
            Err(error) => tracing::warn!(error = chain(&error), "a tick failed that was waited for"),
        }
    };
    tokio::select! {
        reply = timeout(REPLY_LIMIT, replied) => reply.ok().transpose(),
        // The reply may have come in the moment before.
        () = failed => Ok(dict.pop(key).await?),
    }
}
