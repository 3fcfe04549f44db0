//! The builds of images: those under way, and the logs of the last ones.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::SystemTime,
};

use parking_lot::Mutex;

use super::{error::BuildError, interpreter::Interpreter, log::Log};

/// Most builds whose logs are remembered.
const REMEMBERED_BUILDS: usize = 64;

/// The builds of images, and what they share.
#[derive(Default)]
pub struct Images {
    builds: Mutex<Builds>,
    /// Locks, so that there is one build at a time for each environment.
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// The properties of interpreters, valid while the file's time is the same.
    interpreters: Mutex<HashMap<PathBuf, (SystemTime, Interpreter)>>,
    /// Held while uv is installed.
    pub(super) own_uv: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Builds {
    by_image: HashMap<String, Arc<Log>>,
    oldest_first: Vec<String>,
}

impl Images {
    /// The log of a build of an image that runs or has ended recently.
    pub fn log(&self, image_id: &str) -> Option<Arc<Log>> {
        self.builds.lock().by_image.get(image_id).cloned()
    }

    /// Begins a build, unless one runs already. Returns its log, and whether it is new.
    pub(super) fn begin(&self, image_id: &str) -> (Arc<Log>, bool) {
        let mut builds = self.builds.lock();
        if let Some(log) = builds.by_image.get(image_id).filter(|log| log.outcome().is_none()) {
            return (log.clone(), false);
        }
        let log = Arc::new(Log::default());
        builds.by_image.insert(image_id.to_owned(), log.clone());
        builds.oldest_first.retain(|other| other != image_id);
        builds.oldest_first.push(image_id.to_owned());
        if builds.oldest_first.len() > REMEMBERED_BUILDS
            && let Some(ended) = builds.oldest_first.iter().position(|id| builds.by_image[id].outcome().is_some())
        {
            let id = builds.oldest_first.remove(ended);
            builds.by_image.remove(&id);
        }
        (log, true)
    }

    pub(super) fn lock_of(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock();
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        locks.insert(key.to_owned(), Arc::downgrade(&lock));
        lock
    }

    pub(super) async fn inspect(&self, python: &Path) -> Result<Interpreter, BuildError> {
        // A link's own time: a recreated virtual environment has new links.
        let modified = fs::symlink_metadata(python).and_then(|meta| meta.modified()).ok();
        let known = self.interpreters.lock().get(python).cloned();
        if let Some((at, interpreter)) = known
            && Some(at) == modified
        {
            return Ok(interpreter);
        }
        let interpreter = Interpreter::inspect(python).await?;
        if let Some(at) = modified {
            let mut interpreters = self.interpreters.lock();
            interpreters.insert(python.to_owned(), (at, interpreter.clone()));
        }
        Ok(interpreter)
    }
}
