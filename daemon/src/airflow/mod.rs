//! What people do with a deployed Airflow: files, DAGs, runs, logs.
//!
//! Reads come from the published metadata ([`metadata`]), files from the Volume; every change of the metadata is a
//! command to the scheduler ([`scheduler`]), which alone writes the database.

mod backfills;
mod backups;
pub mod command_id;
mod connections;
mod cost;
mod dags;
mod definitions;
mod files;
mod follow;
mod health;
mod logs;
mod metadata;
mod output;
mod pools;
mod questions;
mod runs;
mod scheduler;
mod tasks;
mod ui;
mod values;
mod variables;

use std::path::PathBuf;

use airflow_serverless_api::{environment::EnvironmentName, event::EventKind};
use modal_client::{Client, Volume};
use serde_json::Value;

use crate::{base::Base, error::Result, locks::Locks, modal::Modal, registry::Registry, runtime::Validator};

pub(crate) use definitions::{SharedId, warnings as shared_id_warnings};
pub use files::MAX_FILE_BYTES;
pub(crate) use files::PLUGINS;
pub use follow::Piece;
pub use ui::{OpenUi, UiEvent, Uis};

/// Folder of the DAG files on the Volume.
pub(crate) const DAGS: &str = "dags";

pub struct Airflow {
    registry: Registry,
    modal: Modal,
    validator: Validator,
    metadata: metadata::MetadataCache,
    uis: Uis,
    values: values::Values,
    definitions: definitions::Definitions,
    overdue: health::Overdue,
    /// Held from the look at a DAG file to its change, so that of two creations only one finds nothing there.
    files: Locks,
    /// Where files wait for the validator.
    scratch: PathBuf,
    base: Base,
}

impl Airflow {
    pub fn new(
        base: Base,
        registry: Registry,
        modal: Modal,
        (validator, uis): (Validator, Uis),
        cache: PathBuf,
    ) -> Self {
        let metadata = metadata::MetadataCache::new(cache.join("metadata"));
        let scratch = cache.join("validation");
        files::sweep(&scratch);
        let values = values::Values::default();
        let (definitions, overdue) = (definitions::Definitions::default(), health::Overdue::default());
        let files = Locks::default();
        Self { registry, modal, validator, metadata, uis, values, definitions, overdue, files, scratch, base }
    }

    /// Ends what runs beside the daemon.
    pub async fn stop(&self) {
        self.uis.stop().await;
        self.validator.stop().await;
    }

    pub(crate) async fn record(&self, kind: EventKind, environment: &EnvironmentName, data: Value) {
        self.base.events.record(kind, environment, data).await;
    }

    /// The client of the server on which an environment runs that is deployed.
    async fn client(&self, environment: &EnvironmentName) -> Result<Client> {
        let environment = self.registry.deployed_environment(environment).await?;
        Ok(self.modal.client(environment.target, &environment.config).await?)
    }

    /// The client of the server on which an environment runs, or is about to.
    async fn client_of_any(&self, environment: &EnvironmentName) -> Result<Client> {
        let environment = self.registry.wanted_environment(environment).await?;
        Ok(self.modal.client(environment.target, &environment.config).await?)
    }

    /// The Volume of an environment that is deployed.
    async fn volume(&self, environment: &EnvironmentName) -> Result<Volume> {
        Ok(self.client(environment).await?.volume(&environment.volume()).await?)
    }
}
