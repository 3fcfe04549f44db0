//! The store, the events and the clock, which most modules share.

use chrono::{DateTime, Utc};

use crate::{events::Events, model::Clock, store::Store};

/// The registry on disk, its events, and the clock.
#[derive(Clone)]
pub struct Base {
    pub store: Store,
    pub events: Events,
    pub clock: Clock,
}

impl Base {
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { events: Events::new(store.clone(), clock), store, clock }
    }

    pub fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }
}
