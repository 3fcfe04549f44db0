//! Errors of the store.

use std::{io, path::Path};

use sqlite_schema::SchemaError;

use super::seal::SealError;

/// The store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database could not be opened")]
    Open(#[source] sqlx::Error),
    #[error(
        "the database {path} is damaged. Put a copy in its place if there is one{}; or move it away, and all files beside it \
         whose names begin the same: then apps, Dicts, Queues and Secrets are gone, and the files of Volumes stay in \
         {volumes}", beside(.path)
    )]
    Damaged {
        path: String,
        volumes: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("the database cannot be used")]
    Schema(#[from] SchemaError),
    #[error("the database {path} could not be made readable for its owner alone")]
    Mode { path: String, source: io::Error },
    #[error("the database's records cannot be encrypted or decrypted")]
    Seal(#[from] SealError),
    #[error("the database could not be read")]
    Read(#[source] sqlx::Error),
    #[error("the database holds a {kind} record {id:?} that this version cannot read")]
    Decode {
        kind: String,
        id: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the database could not be written: {0}")]
    Write(String),
    #[error("the database is closed")]
    Closed,
}

/// Names the backups that were made before migrations.
fn beside(path: &str) -> String {
    let found = sqlite_schema::backups(Path::new(path));
    found.last().map(|backup| format!(", such as {}", backup.display())).unwrap_or_default()
}

impl StoreError {
    /// Names the file and the remedy, if the database is damaged.
    pub(super) fn explained(self, path: &Path) -> Self {
        match self {
            Self::Open(source) | Self::Read(source) | Self::Schema(SchemaError::Read { source, .. })
                if sqlite_schema::is_damage(&source) =>
            {
                let volumes = path.with_file_name("volumes").display().to_string();
                Self::Damaged { path: path.display().to_string(), volumes, source }
            }
            other => other,
        }
    }

    /// Whether a newer version wrote the database.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Schema(SchemaError::Newer { .. }))
    }
}
