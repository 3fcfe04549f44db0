//! Checks the schedulers of all environments periodically, so that failures are noticed without a request.

use std::{sync::Arc, time::Duration};

use airflow_serverless_api::environment::{Environment, ListEnvironments, Target, UnregisteredEnvironment};
use airflow_serverless_api::page::Page;
use futures::{StreamExt, stream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{airflow::Airflow, registry::Registry, report::chain};

const PERIOD: Duration = Duration::from_secs(15);
/// Schedulers in Modal's cloud are checked once in this many rounds.
const CLOUD_EVERY: u32 = 4;
const LIMIT: Duration = Duration::from_secs(10);
const AT_A_TIME: usize = 4;

pub struct SchedulerObserver {
    registry: Registry,
    airflow: Arc<Airflow>,
}

impl SchedulerObserver {
    pub fn new(registry: Registry, airflow: Arc<Airflow>) -> Self {
        Self { registry, airflow }
    }

    pub async fn run(self, cancelled: CancellationToken) {
        tokio::select! {
            () = cancelled.cancelled() => return,
            () = self.name_unregistered() => {}
        }
        for look in 0u32.. {
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = self.look(look.is_multiple_of(CLOUD_EVERY)) => {}
            }
        }
    }

    /// At startup, logs deployed environments that are not registered: the registry may have been lost.
    async fn name_unregistered(&self) {
        match self.registry.unregistered_environments().await {
            Ok(found) => {
                for UnregisteredEnvironment { name, target, .. } in found.environments {
                    tracing::warn!(environment.name = %name, %target, "deployed, but not registered: `env adopt` registers it");
                }
                if let Some(error) = found.error {
                    tracing::warn!(error, "Modal's cloud was not asked for environments");
                }
            }
            Err(error) => tracing::warn!(error = chain(&error), "Local Modal was not asked for environments"),
        }
    }

    async fn look(&self, with_cloud: bool) {
        let all = ListEnvironments { limit: Some(Page::LARGEST_LIMIT), ..ListEnvironments::default() };
        let environments = match self.registry.list_environments(&all).await {
            Ok(list) => list.environments,
            Err(error) => return tracing::error!(error = chain(&error), "the registry cannot be read"),
        };
        let wanted = environments.into_iter().filter(|it| it.target == Target::Local || with_cloud);
        stream::iter(wanted).for_each_concurrent(AT_A_TIME, |environment| self.observe(environment)).await;
    }

    async fn observe(&self, environment: Environment) {
        let name = &environment.name;
        match timeout(LIMIT, self.airflow.observe_scheduler(&environment)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(environment.name = %name, error = chain(&error), "not looked at"),
            Err(_) => tracing::debug!(environment.name = %name, "a look at the scheduler took too long"),
        }
    }
}
