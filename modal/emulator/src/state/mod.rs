//! The authoritative state, in memory: plain data and the transitions between its valid forms.
//!
//! Nothing here does I/O or waits. A transition leaves the rows that it changed in [`State::take_changes`], and the
//! objects whose subscribers it concerns in [`State::take_notice`]; `crate::shared` handles both.

mod app;
mod binding;
mod call;
mod delivery;
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
mod task_end;
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
    call::{Call, CallOrigin, OutputsQuery},
    delivery::Delivery,
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
    task::Task,
    task_end::TaskExit,
    web::ProxyToken,
};
use self::{ended::Ended, recent::Recent};
use bytes::Bytes;
use modal_proto::{function_input::ArgsOneof, generic_result::DataOneof};

use crate::{
    ids::blob_hash,
    store::{Change, Record},
    subscriptions::ChangeNotice,
};

/// One reading of both clocks, taken when a transition begins.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Seconds since 1970, for times that are shown, stored or scheduled.
    pub wall: f64,
    /// For limits and delays, which a change of the system's clock must not affect.
    pub mono: Instant,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
        Self { wall, mono: Instant::now() }
    }
}

/// How the containers of a function start.
#[derive(Debug, Default)]
pub struct Health {
    /// Containers in a row that ended before they asked for inputs.
    pub failures: u32,
    /// No new container starts before this.
    pub not_before: Option<Instant>,
    /// Why the last one ended.
    pub last_failure: Option<String>,
}

/// The control plane's state, in memory.
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
    /// Servers that need a container, because requests have come for them.
    pub requested_servers: BTreeSet<String>,
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
    /// When the client of an app that is not deployed last sent a heartbeat.
    pub heartbeats: HashMap<String, Instant>,
    /// Calls by the key with which a client repeats a request whose response was lost.
    pub call_keys: HashMap<String, String>,
    /// Ephemeral Volumes of the last run, whose files have to be removed.
    pub dropped_volumes: Vec<String>,
    /// Calls that were forgotten, whose streams have to be dropped.
    pub forgotten_calls: Vec<String>,
    /// Tasks by the tokens of their containers.
    pub tokens: HashMap<String, String>,
    /// Containers that the next plan kills.
    pub to_kill: Vec<String>,
    /// Whether the server is shutting down: no containers start, and the end of a container is no failure.
    pub closing: bool,
    settings: Settings,
    changes: Vec<Change>,
    notice: ChangeNotice,
    next_sweep: Option<Instant>,
}

/// Copies bytes that are kept for long. Those of a message share its buffer, and would keep all of it in memory:
/// kilobytes for a small value.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The options that transitions use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    pub default_max_containers: u32,
    pub stop_grace: Duration,
}

impl State {
    /// The rows that changed since the last call, oldest first.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The changes since the last call that calls, containers or the driver wait for.
    pub fn take_notice(&mut self) -> ChangeNotice {
        std::mem::take(&mut self.notice)
    }

    /// Hashes of the files in the file store that this state refers to; `sweep` removes all others.
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

    /// Stops everything: no new containers start, and those that run end.
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

    /// Records a change that may concern any subscriber.
    fn touch(&mut self) {
        self.notice.all = true;
    }

    /// Records a change that concerns the driver and the subscribers of an object. It is for changes that every call
    /// makes: to wake all subscribers each time would slow down many concurrent calls.
    fn touch_for(&mut self, id: &str) {
        self.notice.ids.insert(id.to_owned());
    }
}
