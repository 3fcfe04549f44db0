//! Metadata of the files in a watched folder.

use std::collections::BTreeMap;

use crate::model::{Digest, Name, Stamp};

/// A file in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    pub stamp: Stamp,
    pub sha256: Digest,
    /// Imported modules, separated by spaces; empty if it is not Python.
    pub imports: Box<str>,
    pub role: Role,
}

/// The role of a file in Airflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Airflow searches it for DAGs.
    Dags,
    /// Python in the plugin folder.
    Plugin,
    /// Python that is only imported, according to `.airflowignore`.
    Module,
    Data,
}

impl Role {
    /// Whether it must be importable.
    pub fn is_imported(self) -> bool {
        matches!(self, Self::Dags | Self::Plugin)
    }
}

pub type Locals = BTreeMap<Name, Local>;
