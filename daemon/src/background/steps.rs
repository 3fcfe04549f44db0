//! The steps that bring an environment to Modal. Each is idempotent: after a crash all of them run again.

use std::time::Duration;

use airflow_serverless_api::{
    environment::Environment,
    operation::{Step, StepState},
};
use modal_client::{Client, NO_ARGUMENTS, Outcome, SecretOutcome};

use crate::{error::Result, modal::Server, progress::Progress, runtime::Runtime, vault::Vault};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    Config,
    App,
    Volume,
    Dict,
    Secret,
    Runtime,
    Deploy,
    Database,
}

impl StepKind {
    pub const ALL: [Self; 8] =
        [Self::Config, Self::App, Self::Volume, Self::Dict, Self::Secret, Self::Runtime, Self::Deploy, Self::Database];

    fn title(self) -> &'static str {
        match self {
            Self::Config => "Parse the configuration",
            Self::App => "Create the Modal App",
            Self::Volume => "Create the Volume",
            Self::Dict => "Create the Dict",
            Self::Secret => "Store the Secret",
            Self::Runtime => "Prepare the Python runtime",
            Self::Deploy => "Deploy the scheduler and its cron",
            Self::Database => "Initialize the database schema",
        }
    }
}

/// All steps of an operation that has not begun.
pub fn all() -> Vec<Step> {
    let pending = |kind: &StepKind| Step { title: kind.title().to_owned(), state: StepState::Pending, detail: None };
    StepKind::ALL.iter().map(pending).collect()
}

/// What the steps work with.
pub struct Tools {
    pub client: Client,
    pub vault: Vault,
    pub server: Server,
    pub runtime: Runtime,
}

/// Longest wait for Airflow's migrations, the cold start of their container included.
const MIGRATION_LIMIT: Duration = Duration::from_secs(600);

impl Tools {
    /// Runs one step and gives the line that tells its result.
    pub async fn run(&self, kind: StepKind, environment: &Environment, progress: &Progress) -> Result<String> {
        let names = &environment.names;
        match kind {
            StepKind::Config => Ok(summary(environment)),
            StepKind::App => {
                self.client.get_or_create_app(&names.app).await.map(|_| names.app.clone()).map_err(Into::into)
            }
            StepKind::Volume => {
                self.client.volume(&names.volume).await.map(|_| names.volume.clone()).map_err(Into::into)
            }
            StepKind::Dict => self.client.dict(&names.dict).await.map(|_| names.dict.clone()).map_err(Into::into),
            StepKind::Secret => self.secret(environment).await,
            StepKind::Runtime => {
                self.runtime.ensure(progress).await?;
                Ok(format!("Airflow {}, Modal SDK {}", crate::AIRFLOW_VERSION, crate::MODAL_VERSION))
            }
            StepKind::Deploy => {
                self.runtime.deploy(&environment.name, &environment.config, &self.server, progress).await?;
                Ok(format!("every {} s", environment.config.scheduler.interval_seconds))
            }
            StepKind::Database => self.database(environment, progress).await,
        }
    }

    async fn secret(&self, environment: &Environment) -> Result<String> {
        let name = &environment.names.secret;
        Ok(match self.vault.ensure(&environment.name).await? {
            SecretOutcome::Created => name.clone(),
            SecretOutcome::Exists => format!("{name} (kept)"),
        })
    }

    async fn database(&self, environment: &Environment, progress: &Progress) -> Result<String> {
        let function = self.client.function(&environment.names.app, "initialize_database").await?;
        let call = function.spawn(NO_ARGUMENTS).await?;
        progress.detail("running Airflow's migrations");
        match call.wait::<serde_json::Value>(MIGRATION_LIMIT).await? {
            Outcome::Finished(_) => Ok("up to date".to_owned()),
            Outcome::Pending => Err(crate::error::Error::SchedulerSilent(MIGRATION_LIMIT.as_secs())),
        }
    }
}

fn summary(environment: &Environment) -> String {
    let config = &environment.config;
    let database = match config.database.kind {
        airflow_serverless_api::config::DatabaseKind::Sqlite => "SQLite",
        airflow_serverless_api::config::DatabaseKind::Postgres => "PostgreSQL",
    };
    format!("{database}, parallelism {}, task timeout {} s", config.executor.parallelism, config.executor.task_timeout)
}
