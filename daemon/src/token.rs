//! The bearer token of the API on TCP, in a file readable only by its owner. Anyone who can read it may use the API.
//!
//! The file is created when it is first needed, and replaced as a whole when the token is rotated: a running daemon
//! notices that and rejects the old token from then on.

use std::{
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use airflow_serverless_api::Secret;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use crate::private_file::{self, Unreadable};

/// Random bytes in a token, and length of their base64 encoding.
const BYTES: usize = 32;
const LENGTH: usize = 43;
/// Size limit of the file: more than a token and a newline.
const MAX_FILE_BYTES: u64 = 256;

const ROTATE: &str = "`airflow-serverless daemon token --rotate` makes a new one";

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{action} the token file {path:?} failed")]
    Files { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the token file {path:?} can be read by others (mode {mode:03o}), so that its token is not a secret; {ROTATE}"
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("the token file {path:?} belongs to another user; remove it, and {ROTATE}")]
    Foreign { path: PathBuf },
    #[error("the token file {path:?} does not hold a token; {ROTATE}")]
    Malformed { path: PathBuf },
}

type Result<T, E = TokenError> = std::result::Result<T, E>;

/// The current token of a daemon's home.
pub struct Token {
    path: PathBuf,
    known: Mutex<Known>,
}

/// The content of the file when it was last read.
enum Known {
    Token(Stamp, Secret),
    /// Why it held none; logged once.
    Nothing(String),
}

/// Detects that the file was replaced.
#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    mode: u32,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Self { inode: metadata.ino(), mode: metadata.mode(), size: metadata.size(), changed }
    }
}

impl Token {
    /// Opens the token in this file; creates it if necessary.
    pub fn open(path: PathBuf) -> Result<Self> {
        read_or_make(&path)?;
        let (stamp, secret) = read(&path)?;
        Ok(Self { path, known: Mutex::new(Known::Token(stamp, secret)) })
    }

    /// Whether this is the token. Compares in constant time.
    pub fn admits(&self, given: &[u8]) -> bool {
        // Nothing here can fail half-way and leave behind what must not be used.
        let mut known = self.known.lock();
        self.look(&mut known);
        match &*known {
            Known::Token(_, secret) => secret.expose().as_bytes().ct_eq(given).into(),
            Known::Nothing(_) => false,
        }
    }

    /// Reads the file again if it has changed.
    fn look(&self, known: &mut Known) {
        let stamp = std::fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata));
        if matches!((&*known, &stamp), (Known::Token(read, _), Some(stamp)) if read == stamp) {
            return;
        }
        match read(&self.path) {
            Ok((stamp, secret)) => {
                tracing::info!("the API's token has changed");
                *known = Known::Token(stamp, secret);
            }
            Err(error) => {
                let reason = crate::report::chain(&error);
                if !matches!(known, Known::Nothing(told) if *told == reason) {
                    tracing::error!(error = reason, "no request over TCP is let in");
                    *known = Known::Nothing(reason);
                }
            }
        }
    }
}

/// Reads the token in this file; creates it if necessary.
pub fn read_or_make(path: &Path) -> Result<Secret> {
    match read(path) {
        Err(TokenError::Files { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            // If two processes create one at the same time, the first wins.
            match write(path, private_file::create) {
                Err(TokenError::Files { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                written => written?,
            }
            Ok(read(path)?.1)
        }
        found => Ok(found?.1),
    }
}

/// Replaces the token.
pub fn rotate(path: &Path) -> Result<Secret> {
    write(path, private_file::replace)?;
    Ok(read(path)?.1)
}

fn read(path: &Path) -> Result<(Stamp, Secret)> {
    let (metadata, content) = private_file::read(path, MAX_FILE_BYTES).map_err(|why| match why {
        Unreadable::Io(source) => TokenError::Files { action: "reading", path: path.to_owned(), source },
        Unreadable::Foreign => TokenError::Foreign { path: path.to_owned() },
        Unreadable::Exposed(mode) => TokenError::Exposed { path: path.to_owned(), mode },
    })?;
    let text = std::str::from_utf8(&content).unwrap_or_default().trim_end();
    if text.len() < LENGTH || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Malformed { path: path.to_owned() });
    }
    Ok((Stamp::of(&metadata), Secret::new(text)))
}

/// Writes a new token with `put`.
fn write(path: &Path, put: impl FnOnce(&Path, &[u8]) -> io::Result<()>) -> Result<()> {
    let token = URL_SAFE_NO_PAD.encode(std::array::from_fn::<u8, BYTES, _>(|_| rand::random()));
    let failed = |source| TokenError::Files { action: "writing", path: path.to_owned(), source };
    put(path, format!("{token}\n").as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
    }

    #[test]
    fn token_is_created_once_and_replaced_by_rotate() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data/token");
        let first = read_or_make(&path).expect("a token");
        assert_eq!(first.expose().len(), LENGTH);
        assert_eq!(std::fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
        let token = Token::open(path.clone()).expect("a token");
        let admits = |secret: &Secret| token.admits(secret.expose().as_bytes());
        assert!(admits(&first) && !token.admits(b"") && !token.admits(&first.expose().as_bytes()[1..]));
        let second = rotate(&path).expect("a token");
        assert!(admits(&second) && !admits(&first));
        std::fs::remove_file(&path).expect("no file");
        assert!(!admits(&second) && !token.admits(b""));
        let third = read_or_make(&path).expect("a token");
        assert!(admits(&third));
        assert_eq!(std::fs::read_dir(path.parent().expect("a folder")).expect("files").count(), 1, "left-overs");
    }

    #[test]
    fn exposed_or_malformed_token_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let secret = read_or_make(&path).expect("a token");
        let token = Token::open(path.clone()).expect("a token");
        mode(&path, 0o640);
        let error = read_or_make(&path).expect_err("it is exposed").to_string();
        assert!(error.contains("640") && error.contains("--rotate") && !error.contains(secret.expose()), "{error}");
        assert!(!token.admits(secret.expose().as_bytes()));
        let next = rotate(&path).expect("a token");
        assert!(token.admits(next.expose().as_bytes()));
        for content in ["", "short\n", "two words that are longer than forty-three characters\n"] {
            std::fs::write(&path, content).expect("a file");
            assert!(matches!(read_or_make(&path), Err(TokenError::Malformed { .. })), "{content:?}");
        }
    }
}
