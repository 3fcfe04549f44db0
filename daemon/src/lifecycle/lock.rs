//! What keeps a second daemon off this home: a lock, whose file has the pid for people and scripts.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::Write,
};

use airflow_serverless_api::home::Home;

use super::{LifecycleError, failed};

/// Holds the lock for as long as the file is open.
pub fn lock(home: &Home) -> Result<File, LifecycleError> {
    let path = home.runtime.join("airflowd.pid");
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let mut file = opened.map_err(|source| failed("opening", &path, source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(LifecycleError::AlreadyRunning { path: path.display().to_string() });
        }
        Err(TryLockError::Error(source)) => return Err(failed("locking", &path, source)),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|source| failed("writing", &path, source))?;
    Ok(file)
}
