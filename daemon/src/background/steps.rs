//! The steps that bring an environment to Modal. Each is idempotent: after a crash all of them run again.

use std::{collections::HashMap, time::Duration};

use airflow_serverless_api::{
    environment::Environment,
    operation::{Step, StepState},
};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use modal_client::{Client, NO_ARGUMENTS, Outcome, SecretOutcome};

use crate::{error::Result, modal::Server, progress::Progress, runtime::Runtime};

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
    pub server: Server,
    pub runtime: Runtime,
}

/// What the Fernet recipe prescribes.
const FERNET_BYTES: usize = 32;
/// As long as the block of SHA-512, with which Airflow signs tokens.
const SIGNING_BYTES: usize = 64;

/// Longest wait for Airflow's migrations, the cold start of their container included.
const MIGRATION_LIMIT: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_secs(20);

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

    /// The keys that Airflow encrypts and signs with are made once and then left alone: new ones would make stored
    /// connections unreadable.
    async fn secret(&self, environment: &Environment) -> Result<String> {
        let variables = HashMap::from([
            ("AIRFLOW__CORE__FERNET_KEY".to_owned(), random_key::<FERNET_BYTES>()),
            ("AIRFLOW__API_AUTH__JWT_SECRET".to_owned(), random_key::<SIGNING_BYTES>()),
            ("AIRFLOW__API__SECRET_KEY".to_owned(), random_key::<SIGNING_BYTES>()),
        ]);
        let name = &environment.names.secret;
        Ok(match self.client.create_secret(name, variables).await? {
            SecretOutcome::Created => name.clone(),
            SecretOutcome::Exists => format!("{name} (kept)"),
        })
    }

    async fn database(&self, environment: &Environment, progress: &Progress) -> Result<String> {
        let function = self.client.function(&environment.names.app, "initialize_database").await?;
        let call = function.spawn(NO_ARGUMENTS).await?;
        progress.detail("running Airflow's migrations");
        let finished = async {
            loop {
                if let Outcome::Finished(result) = call.get::<serde_json::Value>(POLL).await? {
                    return Ok::<_, modal_client::Error>(result);
                }
            }
        };
        match tokio::time::timeout(MIGRATION_LIMIT, finished).await {
            Ok(result) => result.map(|_| "up to date".to_owned()).map_err(Into::into),
            Err(_) => Err(crate::error::Error::SchedulerSilent(MIGRATION_LIMIT.as_secs())),
        }
    }
}

fn summary(environment: &Environment) -> String {
    let config = &environment.config;
    let database = match config.database.kind {
        airflow_serverless_api::environment::DatabaseKind::Sqlite => "SQLite",
        airflow_serverless_api::environment::DatabaseKind::Postgres => "PostgreSQL",
    };
    format!("{database}, parallelism {}, task timeout {} s", config.executor.parallelism, config.executor.task_timeout)
}

/// Random bytes in URL-safe base64, the form of a Fernet key.
fn random_key<const BYTES: usize>() -> String {
    URL_SAFE.encode(std::array::from_fn::<u8, BYTES, _>(|_| rand::random()))
}
