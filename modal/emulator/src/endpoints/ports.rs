//! The ports on which this server listens for web functions.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The function and the name of its web method, which is empty for the function itself.
pub type Key = (String, String);

/// The open ports, and the tasks that serve them.
#[derive(Default)]
pub struct Endpoints {
    open: Mutex<HashMap<Key, CancellationToken>>,
    stop: CancellationToken,
    pub(super) servers: TaskTracker,
}

impl Endpoints {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, CancellationToken>> {
        self.open.lock()
    }

    pub(super) fn is_open(&self, key: &Key) -> bool {
        self.lock().contains_key(key)
    }

    /// Records an open port. The returned token is canceled when its server has to stop.
    pub(super) fn add(&self, key: Key) -> CancellationToken {
        let stop = self.stop.child_token();
        self.lock().insert(key, stop.clone());
        stop
    }

    /// Stops listening for functions that do not exist any more.
    pub fn close_removed(&self, exists: impl Fn(&Key) -> bool) {
        self.lock().retain(|key, stop| {
            let stays = exists(key);
            if !stays {
                stop.cancel();
            }
            stays
        });
    }

    /// Stops listening and returns when the last request has ended.
    pub async fn close(&self) {
        self.stop.cancel();
        self.servers.close();
        self.servers.wait().await;
    }
}
