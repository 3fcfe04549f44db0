//! Progress of the current step, reported to the followers of the operation.

use tokio::sync::watch;

/// Where a step reports what it is doing. Only the latest message is kept.
#[derive(Clone, Debug)]
pub struct Progress(watch::Sender<Option<String>>);

impl Progress {
    pub fn new() -> (Self, watch::Receiver<Option<String>>) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), receiver)
    }

    pub fn detail(&self, text: &str) {
        self.0.send_replace(Some(text.to_owned()));
    }
}
