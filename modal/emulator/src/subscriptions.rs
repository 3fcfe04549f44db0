//! Subscriptions of requests to changes: each request is woken for changes of its own objects, not for every change.

use std::collections::{BTreeSet, HashMap};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

/// Which subscribers a transition concerns.
#[derive(Debug, Default)]
pub struct ChangeNotice {
    /// Whether it may concern any of them.
    pub all: bool,
    /// The ids of the objects whose subscribers it concerns.
    pub ids: BTreeSet<String>,
}

impl ChangeNotice {
    pub fn is_empty(&self) -> bool {
        !self.all && self.ids.is_empty()
    }
}

/// The channels by which subscribers are woken.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// For changes that may concern any subscriber.
    large: watch::Sender<()>,
    /// One for each object that has subscribers.
    by_id: Mutex<HashMap<String, Channel>>,
}

#[derive(Debug, Default)]
struct Channel {
    sender: watch::Sender<()>,
    subscribers: usize,
}

impl Subscriptions {
    /// Subscribes to changes of an object. No later change is missed.
    pub fn subscribe(&self, id: &str) -> Subscription<'_> {
        let mut by_id = self.lock();
        let channel = by_id.entry(id.to_owned()).or_default();
        channel.subscribers += 1;
        let own = channel.sender.subscribe();
        Subscription { subscriptions: self, id: id.to_owned(), own, large: self.large.subscribe() }
    }

    /// Subscribes to changes that may concern any subscriber.
    pub fn subscribe_large(&self) -> watch::Receiver<()> {
        self.large.subscribe()
    }

    /// Wakes the subscribers whom a change concerns.
    pub fn notify(&self, notice: &ChangeNotice) {
        if notice.all {
            self.large.send_replace(());
        }
        let by_id = self.lock();
        for channel in notice.ids.iter().filter_map(|id| by_id.get(id)) {
            channel.sender.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Channel>> {
        self.by_id.lock()
    }
}

/// A subscription to the changes of one object.
pub struct Subscription<'a> {
    subscriptions: &'a Subscriptions,
    id: String,
    own: watch::Receiver<()>,
    large: watch::Receiver<()>,
}

impl Subscription<'_> {
    /// Returns when there was a change since the last call, or since the subscription began.
    pub async fn changed(&mut self) {
        // The senders live as long as this does.
        tokio::select! {
            _ = self.own.changed() => {}
            _ = self.large.changed() => {}
        }
        self.own.mark_unchanged();
        self.large.mark_unchanged();
    }
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        let mut by_id = self.subscriptions.lock();
        let Some(channel) = by_id.get_mut(&self.id) else { return };
        channel.subscribers -= 1;
        if channel.subscribers == 0 {
            by_id.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_woken(subscription: &mut Subscription<'_>) -> bool {
        // An earlier change wakes it at once.
        tokio::time::timeout(Duration::from_millis(1), subscription.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn change_wakes_only_subscribers_of_its_object() {
        let subscriptions = Subscriptions::default();
        let subscribe = |id| subscriptions.subscribe(id);
        let (mut a, mut again, mut b) = (subscribe("a"), subscribe("a"), subscribe("b"));
        subscriptions.notify(&ChangeNotice { all: false, ids: ["a".to_owned(), "nobody".to_owned()].into() });
        assert!(is_woken(&mut a).await && is_woken(&mut again).await && !is_woken(&mut b).await);
        assert!(!is_woken(&mut a).await, "once");
        subscriptions.notify(&ChangeNotice { all: true, ids: BTreeSet::new() });
        assert!(is_woken(&mut a).await && is_woken(&mut b).await);
        drop((a, b));
        subscriptions.notify(&ChangeNotice { all: false, ids: ["a".to_owned()].into() });
        assert!(is_woken(&mut again).await);
        drop(again);
        assert!(subscriptions.by_id.lock().is_empty(), "channels without subscribers are removed");
    }
}
