//! Progress of the step under way, from deep inside it to whoever follows the operation.

use tokio::sync::watch;

/// Where a step says what it is doing. Only the latest word counts.
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
