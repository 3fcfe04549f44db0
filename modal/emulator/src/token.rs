//! Authentication of clients. A Unix socket is closed to other users, so any token is accepted there. A port is open to
//! all users of this machine, so it requires the secret from the data folder.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use sha2::{Digest, Sha256};

use crate::{ids::new_token, options::Listen};

/// The name of the file with the secret, in the data folder.
pub const TOKEN_FILE: &str = "token";

/// The secret to send where any is accepted; the SDK does not start without one.
const ANY: &str = "as-local";

/// The secret that clients must send, if one is required.
pub struct Token(Option<String>);

impl Token {
    /// The token of a server. The secret is created once and kept.
    pub fn of(data_dir: &Path, listen: &Listen) -> io::Result<Self> {
        if matches!(listen, Listen::Unix(_)) {
            return Ok(Self(None));
        }
        let path = data_dir.join(TOKEN_FILE);
        match fs::read_to_string(&path) {
            Ok(secret) if !secret.trim().is_empty() => return Ok(Self(Some(secret.trim().to_owned()))),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let secret = format!("as-{}", new_token());
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(secret.as_bytes())?;
        file.sync_all()?;
        Ok(Self(Some(secret)))
    }

    /// The value of `MODAL_TOKEN_SECRET`.
    pub fn secret(&self) -> &str {
        self.0.as_deref().unwrap_or(ANY)
    }

    /// Whether a client with this secret may use the server.
    pub fn admits(&self, secret: &[u8]) -> bool {
        // Hashes are compared, so that the time it takes reveals nothing.
        self.0.as_ref().is_none_or(|own| Sha256::digest(own) == Sha256::digest(secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_requires_the_stored_token() {
        let folder = tempfile::tempdir().unwrap();
        let port = Listen::Tcp(([127, 0, 0, 1], 0).into());
        let token = Token::of(folder.path(), &port).unwrap();
        assert!(token.admits(token.secret().as_bytes()) && !token.admits(b"as-local") && !token.admits(b""));
        assert_eq!(Token::of(folder.path(), &port).unwrap().secret(), token.secret());
        let socket = Token::of(folder.path(), &Listen::Unix("socket".into())).unwrap();
        assert!(socket.admits(b"anything"));
    }
}
