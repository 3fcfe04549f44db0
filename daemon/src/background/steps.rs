//! The steps that deploy an environment or take it down. Each is idempotent: after a crash all of them run again.

use std::time::Duration;

use airflow_serverless_api::environment::Environment;
use modal_client::{Client, NO_ARGUMENTS, Outcome, SecretOutcome};

use crate::{
    error::Result, modal::Modal, model::Deletion, progress::Progress, registry::adoption, runtime::Runtime, vault,
};

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
    StopApp,
    ClearSecret,
    RemoveVolume,
    RemoveDict,
    RemoveSecret,
}

impl StepKind {
    const BUILD: [Self; 8] =
        [Self::Config, Self::App, Self::Volume, Self::Dict, Self::Secret, Self::Runtime, Self::Deploy, Self::Database];
    const KEEP: [Self; 2] = [Self::StopApp, Self::ClearSecret];
    const PURGE: [Self; 4] = [Self::StopApp, Self::RemoveVolume, Self::RemoveDict, Self::RemoveSecret];

    pub fn title(self) -> &'static str {
        match self {
            Self::Config => "Parse the configuration",
            Self::App => "Create the Modal App",
            Self::Volume => "Create the Volume",
            Self::Dict => "Create the Dict",
            Self::Secret => "Store the Secret",
            Self::Runtime => "Prepare the Python runtime",
            Self::Deploy => "Deploy the scheduler and its cron",
            Self::Database => "Initialize the database schema",
            Self::StopApp => "Stop the Modal App",
            Self::ClearSecret => "Clear the Secret",
            Self::RemoveVolume => "Remove the Volume",
            Self::RemoveDict => "Remove the Dict",
            Self::RemoveSecret => "Remove the Secret",
        }
    }
}

/// Returns the steps that deploy an environment, or take it down.
pub fn of(deletion: Option<Deletion>) -> &'static [StepKind] {
    match deletion {
        None => &StepKind::BUILD,
        Some(Deletion::Keep) => &StepKind::KEEP,
        Some(Deletion::Purge) => &StepKind::PURGE,
    }
}

/// Returns the titles of these steps.
pub fn titles(deletion: Option<Deletion>) -> impl Iterator<Item = &'static str> {
    of(deletion).iter().map(|kind| kind.title())
}

/// The dependencies of the steps.
pub struct Tools {
    pub modal: Modal,
    pub runtime: Runtime,
}

/// Longest wait for Airflow's migrations, including the cold start of their container.
const MIGRATION_LIMIT: Duration = Duration::from_secs(600);

impl Tools {
    /// Runs one step; returns a line that describes its result.
    pub async fn run(&self, kind: StepKind, environment: &Environment, progress: &Progress) -> Result<String> {
        let (names, config) = (&environment.names, &environment.config);
        let client = self.modal.client(environment.target, config).await?;
        match kind {
            StepKind::Config => Ok(summary(environment)),
            StepKind::App => client.get_or_create_app(&names.app).await.map(|_| names.app.clone()).map_err(Into::into),
            StepKind::Volume => {
                adoption::describe(&client.volume(&names.volume).await?, environment).await?;
                Ok(names.volume.clone())
            }
            StepKind::Dict => client.dict(&names.dict).await.map(|_| names.dict.clone()).map_err(Into::into),
            StepKind::Secret => secret(&client, environment).await,
            StepKind::Runtime => {
                self.runtime.ensure(progress).await?;
                Ok(format!("Airflow {}, Modal SDK {}", crate::AIRFLOW_VERSION, crate::MODAL_VERSION))
            }
            StepKind::Deploy => {
                let server = self.modal.server(environment.target, config)?;
                self.runtime.deploy(&environment.name, config, &server, progress).await?;
                Ok(format!("every {} s", config.scheduler.interval_seconds))
            }
            StepKind::Database => database(&client, environment, progress).await,
            StepKind::StopApp => gone(&names.app, client.stop_app(&names.app).await?),
            StepKind::ClearSecret => clear_secret(&client, environment).await,
            StepKind::RemoveVolume => gone(&names.volume, client.delete_volume(&names.volume).await?),
            StepKind::RemoveDict => gone(&names.dict, client.delete_dict(&names.dict).await?),
            StepKind::RemoveSecret => gone(&names.secret, client.delete_secret(&names.secret).await?),
        }
    }
}

async fn secret(client: &Client, environment: &Environment) -> Result<String> {
    let name = &environment.names.secret;
    Ok(match vault::ensure(client, &environment.name).await? {
        SecretOutcome::Created => name.clone(),
        SecretOutcome::Exists => format!("{name} (kept)"),
    })
}

async fn clear_secret(client: &Client, environment: &Environment) -> Result<String> {
    let name = &environment.names.secret;
    Ok(match vault::clear(client, &environment.name, &environment.config).await? {
        true => format!("{name} (its keys stay with the data)"),
        false => format!("{name} (was gone)"),
    })
}

async fn database(client: &Client, environment: &Environment, progress: &Progress) -> Result<String> {
    let function = client.function(&environment.names.app, "initialize_database").await?;
    let call = function.spawn(NO_ARGUMENTS).await?;
    progress.detail("running Airflow's migrations");
    match call.wait::<serde_json::Value>(MIGRATION_LIMIT).await? {
        Outcome::Finished(_) => Ok("up to date".to_owned()),
        Outcome::Pending => Err(crate::error::Error::SchedulerSilent(MIGRATION_LIMIT.as_secs())),
    }
}

/// Describes the result of a step that removes something.
fn gone(name: &str, was_there: bool) -> Result<String> {
    Ok(if was_there { name.to_owned() } else { format!("{name} (was gone)") })
}

fn summary(environment: &Environment) -> String {
    let config = &environment.config;
    let database = match config.database.kind {
        airflow_serverless_api::config::DatabaseKind::Sqlite => "SQLite",
        airflow_serverless_api::config::DatabaseKind::Postgres => "PostgreSQL",
    };
    format!("{database}, parallelism {}, task timeout {} s", config.executor.parallelism, config.executor.task_timeout)
}
