//! Requests that wait until something happens to an object: each is woken for its own objects, not for every change.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// What happened in a transition, for those who wait.
#[derive(Debug, Default)]
pub struct News {
    /// It may concern anybody.
    pub all: bool,
    /// It concerns those who wait for one of these objects, by their ids.
    pub ids: BTreeSet<String>,
}

impl News {
    pub fn is_empty(&self) -> bool {
        !self.all && self.ids.is_empty()
    }
}

/// The bells by which those who wait are woken.
#[derive(Debug, Default)]
pub struct Waiting {
    everybody: watch::Sender<()>,
    /// One for each object that somebody waits for.
    by_id: Mutex<HashMap<String, Bell>>,
}

#[derive(Debug, Default)]
struct Bell {
    sender: watch::Sender<()>,
    listeners: usize,
}

impl Waiting {
    /// Begins to listen for news of an object. What comes from now on is not missed.
    pub fn listen(&self, id: &str) -> Listener<'_> {
        let mut by_id = self.bells();
        let bell = by_id.entry(id.to_owned()).or_default();
        bell.listeners += 1;
        let own = bell.sender.subscribe();
        Listener { waiting: self, id: id.to_owned(), own, everybody: self.everybody.subscribe() }
    }

    /// Changes with news that may concern anybody.
    pub fn everybody(&self) -> watch::Receiver<()> {
        self.everybody.subscribe()
    }

    /// Wakes those whom the news concern.
    pub fn tell(&self, news: &News) {
        if news.all {
            self.everybody.send_replace(());
        }
        let by_id = self.bells();
        for bell in news.ids.iter().filter_map(|id| by_id.get(id)) {
            bell.sender.send_replace(());
        }
    }

    fn bells(&self) -> MutexGuard<'_, HashMap<String, Bell>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that waits for an object.
pub struct Listener<'a> {
    waiting: &'a Waiting,
    id: String,
    own: watch::Receiver<()>,
    everybody: watch::Receiver<()>,
}

impl Listener<'_> {
    /// Returns when there were news since the last time, or since the beginning.
    pub async fn heard(&mut self) {
        // The senders live as long as this does.
        tokio::select! {
            _ = self.own.changed() => {}
            _ = self.everybody.changed() => {}
        }
        self.own.mark_unchanged();
        self.everybody.mark_unchanged();
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let mut by_id = self.waiting.bells();
        let Some(bell) = by_id.get_mut(&self.id) else { return };
        bell.listeners -= 1;
        if bell.listeners == 0 {
            by_id.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_woken(listener: &mut Listener<'_>) -> bool {
        // What was told before is heard at once.
        tokio::time::timeout(Duration::from_millis(1), listener.heard()).await.is_ok()
    }

    #[tokio::test]
    async fn news_wake_those_whom_they_concern() {
        let waiting = Waiting::default();
        let (mut a, mut again, mut b) = (waiting.listen("a"), waiting.listen("a"), waiting.listen("b"));
        waiting.tell(&News { all: false, ids: ["a".to_owned(), "nobody".to_owned()].into() });
        assert!(is_woken(&mut a).await && is_woken(&mut again).await && !is_woken(&mut b).await);
        assert!(!is_woken(&mut a).await, "once");
        waiting.tell(&News { all: true, ids: BTreeSet::new() });
        assert!(is_woken(&mut a).await && is_woken(&mut b).await);
        drop((a, b));
        waiting.tell(&News { all: false, ids: ["a".to_owned()].into() });
        assert!(is_woken(&mut again).await);
        drop(again);
        assert!(waiting.by_id.lock().unwrap().is_empty(), "nothing is left of those who are gone");
    }
}
