//! Why a Modal server could not be used.

use modal_emulator::StartError;

use super::credentials::CredentialsError;

#[derive(Debug, thiserror::Error)]
pub enum ModalError {
    #[error("Local Modal cannot start")]
    Start(#[from] StartError),
    #[error("{0}")]
    Client(#[from] modal_client::Error),
    #[error("there are no credentials for Modal")]
    NoCredentials,
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl ModalError {
    /// Whether a newer Local Modal wrote what is on disk.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Start(StartError::Store(error)) if error.is_newer())
    }
}
