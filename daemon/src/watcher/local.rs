//! What is known of the files in a folder.

use std::collections::BTreeMap;

use crate::model::{Digest, Name, Stamp};

/// A file in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    pub stamp: Stamp,
    pub sha256: Digest,
    /// Modules that it imports, with blanks between them; empty if it is not Python.
    pub imports: Box<str>,
    pub role: Role,
}

/// What a file is to Airflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Airflow looks for DAGs in it.
    Dags,
    /// Python in the folder of the plugins.
    Plugin,
    /// Python that is only imported: `.airflowignore` says so.
    Module,
    Data,
}

impl Role {
    /// Whether it has to be importable.
    pub fn is_imported(self) -> bool {
        matches!(self, Self::Dags | Self::Plugin)
    }
}

pub type Locals = BTreeMap<Name, Local>;
