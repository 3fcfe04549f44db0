//! Clients that write without a pause, and send again what was not answered. Each tells what it was promised.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use integration_tests::{
    eventually,
    requests::{Reply, Request},
    text,
};
use serde_json::{Value, json};

/// Environments that a client leaves behind, and watches.
const RESTING: usize = 3;
const WATCHES: usize = 9;
/// Environments, changes of a configuration and watches without which the kills would have met too little.
pub const ENOUGH: usize = 10;

pub fn config(interval: u64) -> Value {
    json!({
        "database": {"type": "sqlite"},
        "scheduler": {"interval_seconds": interval},
        "airflow": {"dags_are_paused_at_creation": true},
    })
}

pub fn dag_file(version: u64) -> String {
    format!("from airflow.sdk import DAG\n\ndag = DAG('changing', description='{version}', schedule=None)\n")
}

/// The file in a watched folder; it says where it is from.
pub fn name_of_file(folder: &str) -> String {
    let name = Path::new(folder).file_name().expect("a name");
    format!("{}.txt", name.display())
}

pub fn file_of(folder: &str) -> PathBuf {
    Path::new(folder).join(name_of_file(folder))
}

#[derive(Clone, Copy)]
pub struct Client<'a> {
    pub name: &'static str,
    pub socket: &'a Path,
    pub stop: &'a AtomicBool,
}

/// Environments that were made: those that were cancelled and left, and how many in all.
pub struct Environments {
    pub made: usize,
    pub resting: Vec<String>,
}

/// Watches that were added: those that were not removed again, with their folders, and how many in all.
pub struct Watches {
    pub made: usize,
    pub kept: BTreeMap<String, String>,
}

impl Client<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Also when all is over, until a little is done: a busy machine may have had no time for it among the kills.
    fn goes_on_until(&self, enough: bool) -> bool {
        self.goes_on() || !enough
    }

    /// Sends a request until it is answered, whichever daemon that is by then.
    fn answer(&self, request: &Request) -> Reply {
        eventually(&format!("an answer to {} for {request:?}", self.name), || request.send(self.socket).ok())
    }

    fn post(&self, path: &str, key: &str, body: &Value) -> Reply {
        self.answer(&Request::new(format!("POST {path}")).json(body).with_key(&format!("{} {key}", self.name)))
    }

    /// Environments that are cancelled and deleted before they are there.
    pub fn environments(self) -> Environments {
        let mut all = Environments { made: 0, resting: Vec::new() };
        while self.goes_on_until(all.made > ENOUGH) {
            let number = all.made;
            let name = format!("{}-{number}", self.name);
            let body = json!({"name": name, "config": config(86_400)});
            let created = self.post("/v1/environments", &name, &body).expect(&[202]);
            all.made += 1;
            self.are_refused(number);
            let rests = number.is_multiple_of(8) && all.resting.len() < RESTING;
            if rests || number.is_multiple_of(3) {
                let cancel = format!("/v1/operations/{}/cancel", text(&created["operation"]["id"]));
                let cancelled = self.post(&cancel, &format!("cancel {name}"), &json!({})).expect(&[200]);
                assert_eq!(cancelled["state"], "cancelled", "{cancelled}");
            }
            if rests {
                all.resting.push(name);
            } else {
                // Asked for again, it may be gone already.
                self.answer(&Request::new(format!("DELETE /v1/environments/{name}?purge=true"))).expect(&[202, 404]);
            }
        }
        all
    }

    /// Requests that leave nothing behind.
    fn are_refused(&self, number: usize) {
        let name = format!("{}-refused-{number}", self.name);
        let invalid = json!({"name": name, "config": {"database": {"type": "sqlite"}, "executor": {"parallelism": 0}}});
        self.post("/v1/environments", &name, &invalid).expect(&[422]);
        let differs = json!({"name": "dev", "config": config(1)});
        self.post("/v1/environments", &format!("{name} differs"), &differs).expect(&[409]);
    }

    /// Changes of a configuration, of which some are followed to their end; how many, and the last one.
    pub fn configurations(self) -> (u64, u64) {
        let (mut changes, mut interval) = (0, 60);
        while self.goes_on_until(changes > ENOUGH as u64) {
            changes += 1;
            interval = 60 + changes;
            let patch = Request::new("PATCH /v1/environments/dev").json(&json!({"config": config(interval)}));
            let changed = self.answer(&patch).expect(&[202]);
            if u64::is_multiple_of(changes, 16) {
                let operation = format!("GET /v1/operations/{}?wait_seconds=5", text(&changed["operation"]["id"]));
                self.answer(&Request::new(operation)).expect(&[200]);
            }
        }
        (changes, interval)
    }

    /// Folders that are watched for a while.
    pub fn watches(self, root: &Path) -> Watches {
        let mut all = Watches { made: 0, kept: BTreeMap::new() };
        while self.goes_on_until(all.made > ENOUGH) {
            let folder = root.join(format!("{}-{}", self.name, all.made)).display().to_string();
            fs::create_dir(&folder).expect("a folder");
            // Each upload wakes the scheduler, and is work for many seconds if there are too many.
            if all.made.is_multiple_of(8) {
                fs::write(file_of(&folder), &folder).expect("a written file");
            }
            let body = json!({"environment": "dev", "directory": folder});
            let added = self.post("/v1/watches", &folder, &body).expect(&[200, 201]);
            all.kept.insert(text(&added["id"]).to_owned(), folder);
            all.made += 1;
            if all.kept.len() > WATCHES {
                let oldest = all.kept.keys().next().expect("a watch").clone();
                // Asked for again, it may be gone already.
                self.answer(&Request::new(format!("DELETE /v1/watches/{oldest}"))).expect(&[200, 404]);
                all.kept.remove(&oldest);
            }
        }
        all
    }

    /// Versions of one DAG file; the last one's number.
    pub fn dag_files(self) -> (u64,) {
        let mut version = 0;
        while self.goes_on_until(version > 1) {
            version += 1;
            let mode = if version == 1 { "create" } else { "update" };
            let put = format!("PUT /v1/environments/dev/dags/files/changing.py?mode={mode}");
            self.answer(&Request::new(put).body("text/x-python", dag_file(version))).expect(&[200]);
        }
        (version,)
    }

    /// Values of one variable; the last one.
    pub fn variables(self) -> (u64,) {
        let mut value = 0;
        while self.goes_on_until(value > 0) {
            value += 1;
            let variable = json!({"key": "variable", "value": value.to_string()});
            let body = json!({"variables": [variable], "action_on_existing_key": "overwrite"});
            self.post("/v1/environments/dev/variables", &value.to_string(), &body).expect(&[200]);
        }
        (value,)
    }

    /// Runs of a DAG that is paused, without names of their own: only the key tells one from the next.
    pub fn runs(self) -> u64 {
        let mut runs = 0;
        while self.goes_on_until(runs > 0) {
            self.post("/v1/environments/dev/dags/greeting/runs", &runs.to_string(), &json!({})).expect(&[201]);
            runs += 1;
        }
        runs
    }

    /// Looks at everything; how often.
    pub fn reads(self) -> usize {
        let mut reads = 0;
        while self.goes_on() {
            for path in ["environments", "environments/dev", "operations?limit=5", "watches", "version"] {
                self.answer(&Request::new(format!("GET /v1/{path}"))).expect(&[200]);
                reads += 1;
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        reads
    }
}
