//! Credentials for Modal's cloud, in a file readable only by the user.

use std::{
    io,
    path::{Path, PathBuf},
};

use airflow_serverless_api::{
    Secret,
    credentials::{CredentialsStatus, MODAL_SERVER_URL, PutCredentials},
    problem::Fault,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::private_file::{self, Unreadable};

/// Size limit of the file.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    pub token_id: String,
    pub token_secret: Secret,
    pub server_url: String,
    pub workspace: Option<String>,
    pub updated_at: DateTime<Utc>,
}

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("{action} the credentials in {path} failed")]
    Files { action: &'static str, path: String, source: io::Error },
    #[error("the credentials in {path} cannot be read; `airflow-serverless auth login` replaces them")]
    Invalid { path: String },
    #[error("{path} belongs to another user; remove it, and `airflow-serverless auth login` creates it again")]
    Foreign { path: String },
    #[error("{path} can be read by other users; `chmod 600` it, or have Modal replace the token")]
    Exposed { path: String },
    #[error("the credentials are not valid")]
    Malformed(Vec<Fault>),
}

impl Credentials {
    /// Creates credentials from a request; `Malformed` if the id or the secret is not a Modal token.
    pub(super) fn new(wanted: PutCredentials, now: DateTime<Utc>) -> Result<Self, CredentialsError> {
        check("token_id", "ak-", &wanted.token_id)?;
        check("token_secret", "as-", wanted.token_secret.expose())?;
        let PutCredentials { token_id, token_secret, server_url } = wanted;
        let server_url = server_url.unwrap_or_else(|| MODAL_SERVER_URL.to_owned());
        Ok(Self { token_id, token_secret, server_url, workspace: None, updated_at: now })
    }
}

/// The credentials file.
#[derive(Clone, Debug)]
pub struct CredentialsFile(PathBuf);

impl CredentialsFile {
    /// Returns the file in this folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self(folder.join("credentials.json"))
    }

    /// Reads the credentials, if there are any.
    pub fn read(&self) -> Result<Option<Credentials>, CredentialsError> {
        let path = || self.0.display().to_string();
        let content = match private_file::read(&self.0, MAX_FILE_BYTES) {
            Ok((_, content)) => content,
            Err(Unreadable::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(Unreadable::Io(source)) => {
                return Err(CredentialsError::Files { action: "reading", path: path(), source });
            }
            Err(Unreadable::Foreign) => return Err(CredentialsError::Foreign { path: path() }),
            Err(Unreadable::Exposed(_)) => return Err(CredentialsError::Exposed { path: path() }),
        };
        // The parser's message could repeat a secret.
        serde_json::from_slice(&content).map(Some).map_err(|_| CredentialsError::Invalid { path: path() })
    }

    /// Replaces the credentials atomically.
    pub(super) fn write(&self, credentials: &Credentials) -> Result<(), CredentialsError> {
        let written = serde_json::to_vec_pretty(credentials).map_err(io::Error::from);
        let written = written.and_then(|text| private_file::replace(&self.0, &text));
        written.map_err(|source| {
            let path = self.0.display().to_string();
            CredentialsError::Files { action: "writing", path, source }
        })
    }

    /// Returns the status of the credentials, without the secret.
    pub fn status(&self) -> Result<CredentialsStatus, CredentialsError> {
        Ok(match self.read()? {
            None => CredentialsStatus {
                configured: false,
                token_id: None,
                server_url: None,
                workspace: None,
                updated_at: None,
            },
            Some(credentials) => CredentialsStatus {
                configured: true,
                token_id: Some(credentials.token_id),
                server_url: Some(credentials.server_url),
                workspace: credentials.workspace,
                updated_at: Some(credentials.updated_at),
            },
        })
    }

    /// Removes the credentials; returns whether there were any.
    pub fn remove(&self) -> Result<bool, CredentialsError> {
        match std::fs::remove_file(&self.0) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => {
                let path = self.0.display().to_string();
                Err(CredentialsError::Files { action: "removing", path, source })
            }
        }
    }
}

fn check(location: &str, prefix: &str, text: &str) -> Result<(), CredentialsError> {
    let is_token = text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
    if is_token && text.len() <= 200 && text.chars().all(|c| c.is_ascii_graphic()) {
        return Ok(());
    }
    let message = format!("is not a Modal token: it begins with `{prefix}` and has no blanks");
    Err(CredentialsError::Malformed(vec![Fault::new(location, message)]))
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn credentials_file_is_private_and_the_secret_redacted() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = CredentialsFile::in_folder(folder.path());
        assert!(file.read().expect("nothing").is_none());
        let credentials = Credentials {
            token_id: "ak-1".to_owned(),
            token_secret: Secret::new("as-hunter2"),
            server_url: MODAL_SERVER_URL.to_owned(),
            workspace: None,
            updated_at: Utc::now(),
        };
        file.write(&credentials).expect("written");
        assert_eq!(file.read().expect("credentials"), Some(credentials.clone()));
        assert_eq!(file.0.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
        assert!(!format!("{credentials:?}{:?}", file.status().expect("a status")).contains("hunter2"));

        std::fs::set_permissions(&file.0, Permissions::from_mode(0o644)).expect("set");
        assert!(matches!(file.read(), Err(CredentialsError::Exposed { .. })));
        std::fs::set_permissions(&file.0, Permissions::from_mode(0o600)).expect("set");
        std::fs::write(&file.0, "{\"token_secret\": hunter2").expect("written");
        let error = file.read().expect_err("no JSON");
        assert!(matches!(error, CredentialsError::Invalid { .. }) && !error.to_string().contains("hunter2"));
        assert!(file.remove().expect("removed") && !file.remove().expect("nothing"));
    }
}
