//! Operations on a deployed Airflow: files, DAGs, runs, logs.
//!
//! [`Airflow::deployed`] returns a handle on an environment ([`deployed`]), whose methods are in one file per noun.
//! Reads use the published metadata ([`metadata`]) and the Volume; every change of the metadata is a command to the
//! scheduler ([`scheduler`]), which alone writes the database.

mod backfills;
mod backups;
pub mod command_id;
mod connections;
mod cost;
mod dag_files;
mod dags;
mod definitions;
mod deployed;
mod file_names;
mod follow;
mod health;
mod import_errors;
mod logs;
mod metadata;
mod output;
mod plugins;
mod pools;
mod questions;
mod runs;
mod scheduler;
mod tasks;
mod ui;
mod validation;
mod values;
mod variables;

use std::path::PathBuf;

use airflow_serverless_api::{environment::EnvironmentName, event::EventKind};
use serde_json::Value;

use crate::{base::Base, locks::Locks, modal::Modal, registry::Registry, runtime::Validator};

pub(crate) use dag_files::{DAGS, PLUGINS, on_volume};
pub(crate) use definitions::{SharedId, warnings as shared_id_warnings};
pub use deployed::Deployed;
pub use file_names::{DagFilePath, MAX_FILE_BYTES};
pub use follow::Piece;
pub use ui::{OpenUi, UiEvent, Uis};

/// State shared by all handles.
pub struct Airflow {
    registry: Registry,
    modal: Modal,
    validator: Validator,
    objects: deployed::KnownObjects,
    metadata: metadata::MetadataCache,
    uis: Uis,
    values: values::Values,
    definitions: definitions::Definitions,
    plugins: plugins::PluginCache,
    overdue: health::Overdue,
    /// Held from the check of a DAG file to its change, so that only one of two concurrent creations succeeds.
    files: Locks,
    /// Folder for files that are being validated.
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
        let scratch = cache.join("validation");
        validation::sweep(&scratch);
        Self {
            registry,
            modal,
            validator,
            uis,
            metadata: metadata::MetadataCache::new(cache.join("metadata")),
            objects: Default::default(),
            values: Default::default(),
            definitions: Default::default(),
            plugins: Default::default(),
            overdue: Default::default(),
            files: Locks::default(),
            scratch,
            base,
        }
    }

    /// Stops the processes that run beside the daemon.
    pub async fn stop(&self) {
        self.uis.stop().await;
        self.validator.stop().await;
    }

    pub(crate) async fn record(&self, kind: EventKind, environment: &EnvironmentName, data: Value) {
        self.base.events.record(kind, environment, data).await;
    }
}
