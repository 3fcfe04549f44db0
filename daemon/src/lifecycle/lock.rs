//! The lock that prevents a second daemon in this home. Its file names the holder.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
};

use airflow_serverless_api::home::{Holder, Home};
use rustix::{
    fs::{FlockOperation, fcntl_lock},
    io::Errno,
};

use super::{LifecycleError, failed};

/// Takes the lock. It is held while the file is open and no other descriptor of it is closed, so no other part of the
/// daemon may open the file. (In return, this kind of lock shows its holder to anyone without being touched.)
pub fn lock(home: &Home) -> Result<File, LifecycleError> {
    let path = home.lock();
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = opened.map_err(|source| failed("opening", &path, source))?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::AGAIN | Errno::ACCESS) => {
            let mut text = String::new();
            // The file is empty between the other daemon's lock and its write.
            let holder = file.read_to_string(&mut text).ok().and_then(|_| Holder::parse(&text));
            let who = holder.map(|it| format!("pid {}, socket {}, ", it.pid, it.socket.display())).unwrap_or_default();
            return Err(LifecycleError::AlreadyRunning { who: format!("{who}lock {}", path.display()) });
        }
        Err(source) => return Err(failed("locking", &path, source.into())),
    }
    let own = Holder { pid: std::process::id(), socket: home.socket() };
    let written = file.set_len(0).and_then(|()| write!(file, "{own}"));
    written.map_err(|source| failed("writing", &path, source))?;
    Ok(file)
}
