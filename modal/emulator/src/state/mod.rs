//! The authoritative state, in memory: plain data and the transitions between its valid forms.
//!
//! Nothing here does I/O or waits. A transition leaves the rows it changed in [`State::take_changes`] and says in
//! [`State::take_news`] who may be waiting for what it did; `crate::shared` sees to both.

mod app;
mod binding;
mod call;
mod describe;
mod dict;
mod ended;
mod environment;
mod function;
mod graph;
mod history;
mod input;
mod load;
mod names;
mod object;
mod pinned;
mod plan;
mod queue;
mod recent;
mod scale;
mod schedule;
mod server;
mod task;
#[cfg(test)]
mod tests;
mod web;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

pub use self::{
    app::App,
    call::{Call, Caller, OutputsQuery},
    describe::service_tag,
    dict::{Dict, MAX_VALUE_BYTES},
    environment::Environment,
    function::{Class, Definition, Function},
    history::Version,
    input::{CrashNote, Input, Output},
    names::{Creation, environment},
    object::{Built, Image, Mount, Secret, Volume},
    plan::StopSignal,
    queue::Queue,
    schedule::{Schedule, next_time},
    server::Route,
    task::{Delivery, Task, TaskExit},
    web::ProxyToken,
};
use self::{ended::Ended, recent::Recent};
use bytes::Bytes;
use modal_proto::{function_input::ArgsOneof, generic_result::DataOneof};

use crate::{
    ids::blob_hash,
    store::{Change, Record},
    waiting::News,
};

/// One reading of both clocks, taken when a transition begins.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Seconds since 1970, for what is shown, stored or scheduled.
    pub wall: f64,
    /// For limits and delays, which a changed clock must not touch.
    pub mono: Instant,
}

impl Now {
    /// The present.
    pub fn read() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
        Self { wall, mono: Instant::now() }
    }
}

/// What a function's containers have been up to.
#[derive(Debug, Default)]
pub struct Health {
    /// Containers in a row that ended before they asked for work.
    pub failures: u32,
    /// No new container before this.
    pub not_before: Option<Instant>,
    /// Why the last one ended.
    pub last_failure: Option<String>,
}

/// All there is.
#[derive(Default)]
pub struct State {
    pub environments: BTreeMap<String, Environment>,
    pub apps: BTreeMap<String, App>,
    pub versions: BTreeMap<String, Version>,
    pub functions: BTreeMap<String, Function>,
    pub definitions: BTreeMap<String, Arc<Definition>>,
    pub classes: BTreeMap<String, Class>,
    pub schedules: BTreeMap<String, Schedule>,
    pub calls: BTreeMap<String, Call>,
    pub inputs: BTreeMap<String, Input>,
    /// Ids of inputs that wait for a container, by function.
    pub queues: HashMap<String, VecDeque<String>>,
    pub tasks: BTreeMap<String, Task>,
    pub ended: Ended,
    /// The servers that are to have a container, as requests have come for them.
    pub wanted_servers: BTreeSet<String>,
    pub health: HashMap<String, Health>,
    pub dicts: BTreeMap<String, Dict>,
    /// The Queues of users.
    pub item_queues: BTreeMap<String, Queue>,
    recent: Recent,
    pub volumes: BTreeMap<String, Volume>,
    pub secrets: BTreeMap<String, Secret>,
    pub proxy_tokens: BTreeMap<String, ProxyToken>,
    pub mounts: BTreeMap<String, Mount>,
    pub images: BTreeMap<String, Image>,
    /// When the client of an app that is not deployed was last heard of.
    pub heartbeats: HashMap<String, Instant>,
    /// Calls by the key with which a client repeats a request whose answer got lost.
    pub call_keys: HashMap<String, String>,
    /// Ephemeral Volumes of the last run, whose files are to be removed.
    pub dropped_volumes: Vec<String>,
    /// Calls that were forgotten, whose streams are to be dropped.
    pub forgotten_calls: Vec<String>,
    /// Container tokens, to find the task that calls.
    pub tokens: HashMap<String, String>,
    /// Containers that are to be killed.
    pub doomed: Vec<String>,
    /// No containers are started any more, and a container that ends was not at fault.
    pub closing: bool,
    settings: Settings,
    changes: Vec<Change>,
    news: News,
    next_sweep: Option<Instant>,
}

/// A copy of what is to be kept for long. What a message brought is a part of it, and would keep all of it in memory: of
/// a small value that is the buffer of kilobytes in which it came.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The options that transitions need.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    pub default_max_containers: u32,
    pub stop_grace: Duration,
}

impl State {
    /// The rows changed since the last time this was asked, oldest first.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// What happened since the last time this was asked that calls, containers or the driver wait for.
    pub fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// Hashes of the files in the file store that something here refers to; others are removed some time.
    pub fn referenced_files(&self) -> impl Iterator<Item = String> {
        let mounted = self.mounts.values().flat_map(|mount| mount.files.values()).map(|(hash, _)| hash.as_str());
        let arguments = self.inputs.values().filter_map(|input| match &input.arguments.args_oneof {
            Some(ArgsOneof::ArgsBlobId(id)) => blob_hash(id),
            _ => None,
        });
        let outputs = self.calls.values().flat_map(|call| &call.outputs);
        let results = outputs.filter_map(|output| match output.item().result?.data_oneof {
            Some(DataOneof::DataBlobId(id)) => blob_hash(&id).map(str::to_owned),
            _ => None,
        });
        let yielded = self.calls.values().flat_map(|call| &call.yielded_files).map(String::as_str);
        mounted.chain(arguments).chain(yielded).map(str::to_owned).chain(results)
    }

    /// Stops everything: from here on there are no new containers, and those that run are to end.
    pub fn close(&mut self) {
        self.closing = true;
        self.touch();
    }

    fn save<R: Record>(&mut self, record: &R) {
        self.changes.push(Change::put(record));
    }

    fn forget<R: Record>(&mut self, id: &str) {
        self.changes.push(Change::delete::<R>(id));
    }

    /// Something happened that may concern anybody who waits.
    fn touch(&mut self) {
        self.news.all = true;
    }

    /// Something happened that concerns the driver and those who wait for an object. It is for what happens with every
    /// call: waking all who wait each time would make many calls slow together.
    fn touch_for(&mut self, id: &str) {
        self.news.ids.insert(id.to_owned());
    }
}
