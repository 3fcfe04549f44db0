//! Days of uptime, one after the other: what the daemon forgets in time makes room for what comes.
//!
//! The daemon's time is the real one. What is in its registry is made older by a day after each day's work, and the
//! daemon forgets by itself what is too old by then.

use std::{fmt, fs, path::Path, thread};

use integration_tests::{
    Installation,
    daemon::Daemon,
    databases::{execute, rows},
    eventually,
    footprint::{Footprint, peak_kib},
    requests::Request,
    text,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Longer than anything in the registry is kept.
const DAYS: usize = 14;
/// By then there has been as much in the registry as there ever will be, a week's operations and one more day, and the
/// first of it was forgotten.
const STEADY: usize = 11;
const CLIENTS: usize = 4;
/// Memory for what Local Modal keeps.
const RECORD_KIB: u64 = 1;

/// What happens on one day.
struct Day {
    /// An environment is created and deleted: two operations.
    environments: usize,
    saves: usize,
}

/// By how much a daemon may be larger on the last day than when it was first steady.
struct Growth {
    /// Without what Local Modal keeps: it knows nothing of days that are not real, and has each call of the test with
    /// its app.
    memory_kib: u64,
    modal_kib: u64,
    rest_kib: u64,
}

#[test]
fn resources_do_not_grow_over_days_of_work() {
    endure(&Day { environments: 46, saves: 3 }, &Growth { memory_kib: 3 << 10, modal_kib: 512, rest_kib: 1 << 10 });
}

/// `make endurance`
/// MiB that no part of the metadata has otherwise.
const BALLAST: u64 = 50;
/// What the daemon may need for all that it does.
const MOST_KIB: u64 = 45 << 10;

#[test]
fn large_database_is_not_held_in_memory() {
    let it = Installation::new();
    let mut daemon = Daemon::start(&it, &[]);
    daemon.serves(&it);
    it.create_dev(3600).succeeded();
    it.upload("greeting.py");
    it.run_dag("greeting", &[]).0.succeeded();
    // The scheduler that starts next finds it so large.
    daemon.signal(Signal::TERM);
    daemon.ended();
    let database = it.volume().join("data/airflow.db");
    execute(&database, &format!("CREATE TABLE ballast (x); INSERT INTO ballast VALUES (zeroblob({}))", BALLAST << 20));
    let mut daemon = Daemon::start(&it, &[]);
    daemon.serves(&it);
    it.run_dag("greeting", &[]).0.succeeded();
    let listed = it.dev("runs list", &["--json"]).succeeded().json();
    assert_eq!(listed["total_entries"], 2);
    let (peak, (done, _)) = peak_kib(daemon.0.id(), || it.run_dag("greeting", &[]));
    done.succeeded();
    let copy = fs::metadata(it.home().join("cache/metadata/dev.db")).expect("the daemon's copy");
    assert!(copy.len() > BALLAST << 20, "the database was published without it");
    println!("{peak} KiB at most");
    assert!(peak < MOST_KIB, "{peak} KiB");
    daemon.signal(Signal::TERM);
    daemon.ended();
}

#[test]
#[ignore = "takes many minutes"]
fn resources_do_not_grow_over_weeks_of_work() {
    endure(
        &Day { environments: 455, saves: 91 },
        &Growth { memory_kib: 2 << 10, modal_kib: 2 << 10, rest_kib: 2 << 10 },
    );
}

/// What there is when a day's work is done.
struct Evening {
    footprint: Footprint,
    /// What the registry holds.
    content_kib: u64,
    /// What Local Modal keeps.
    records: u64,
    /// Names in the daemon's figures.
    series: usize,
}

impl fmt::Display for Evening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { footprint, content_kib, records, series } = self;
        write!(f, "{footprint}; the registry holds {content_kib} KiB, Local Modal {records} records; {series} series")
    }
}

struct Endurance<'a> {
    it: &'a Installation,
    watch: String,
}

impl Endurance<'_> {
    fn ask(&self, request: &Request) -> Value {
        request.send(&self.it.socket()).expect("an answer").expect(&[200, 201, 202])
    }

    fn get(&self, path: &str) -> Value {
        self.ask(&Request::new(format!("GET /v1/{path}")))
    }

    fn work(&self, day: &Day, number: usize) {
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let share = day.environments / CLIENTS + usize::from(client < day.environments % CLIENTS);
                scope.spawn(move || (0..share).for_each(|n| self.come_and_go(&format!("day{number}-{client}-{n}"))));
            }
            scope.spawn(|| (0..day.saves).for_each(|n| self.save(number * day.saves + n)));
        });
    }

    /// An environment that is wanted and, before it is there, no longer.
    fn come_and_go(&self, name: &str) {
        let body = json!({"name": name, "config": {"database": {"type": "sqlite"}}});
        self.ask(&Request::new("POST /v1/environments").json(&body).with_key(name));
        let deleted = self.ask(&Request::new(format!("DELETE /v1/environments/{name}?purge=true")));
        let id = text(&deleted["operation"]["id"]);
        eventually("the deletion", || {
            let operation = self.get(&format!("operations/{id}?wait_seconds=30"));
            (operation["state"] == "succeeded").then_some(())
        });
    }

    /// Saves the data file or the DAG file, and waits until it is on the Volume.
    fn save(&self, number: usize) {
        let (name, content) = match number % 10 {
            0 => ("dag.py", format!("from airflow.sdk import DAG\ndag = DAG('dag', description='{number}')\n")),
            _ => ("data.txt", number.to_string()),
        };
        fs::write(self.it.root().join("dags").join(name), &content).expect("a written file");
        let place = self.it.home().join("data/modal/volumes");
        eventually("the upload", || {
            let volumes = fs::read_dir(&place).expect("volumes").filter_map(Result::ok);
            let mut found = volumes.filter_map(|volume| fs::read_to_string(volume.path().join("dags").join(name)).ok());
            found.any(|found| found == content).then_some(())
        });
    }

    /// Waits until nothing is under way any more.
    fn rests(&self) {
        let state = self.it.home().join("data/modal/state.db");
        eventually("the end of all calls", || {
            let waiting = &rows(&state, "SELECT count(*) FROM record WHERE kind = 'input'")[0][0];
            (*waiting == 0 && self.get("operations?state=running")["total_entries"] == 0).then_some(())
        });
        eventually("the record of the upload", || {
            (self.get(&format!("watches/{}", self.watch))["state"] == "in_sync").then_some(())
        });
    }

    /// Makes all that is recorded a day older, and waits until what is too old then is forgotten.
    fn sleep(&self) {
        let registry = self.it.home().join("data/registry.db");
        let older = |column: &str| format!("{column} = strftime('%Y-%m-%dT%H:%M:%f+00:00', {column}, '-1 day')");
        execute(
            &registry,
            &format!(
                "UPDATE operation SET {}, {}; UPDATE event SET {}; UPDATE idempotency SET {}",
                older("created_at"),
                older("updated_at"),
                older("created_at"),
                older("created_at")
            ),
        );
        // As the daemon writes times, which are compared as texts.
        let ago = |days: u32| format!("strftime('%Y-%m-%dT%H:%M:%f', 'now', '-{days} days')");
        let left = format!(
            "SELECT (SELECT count(*) FROM operation WHERE updated_at < {week})
                  + (SELECT count(*) FROM event WHERE created_at < {week})
                  + (SELECT count(*) FROM idempotency WHERE created_at < {day})",
            week = ago(7),
            day = ago(1)
        );
        eventually("the daemon's tidiness", || (rows(&registry, &left)[0][0] == 0).then_some(()));
    }

    /// What Local Modal keeps.
    fn records(&self) -> u64 {
        let state = self.it.home().join("data/modal/state.db");
        rows(&state, "SELECT count(*) FROM record")[0][0].as_u64().expect("a number")
    }

    /// The pages of the registry that hold something.
    fn content_kib(&self) -> u64 {
        let query = "SELECT (p.page_count - f.freelist_count) * s.page_size / 1024
                     FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s";
        rows(&self.it.home().join("data/registry.db"), query)[0][0].as_u64().expect("a number")
    }

    /// Names of series in the daemon's figures.
    fn series(&self) -> usize {
        let metrics = Request::new("GET /v1/metrics").send(&self.it.socket()).expect("an answer");
        assert_eq!(metrics.status, 200, "{metrics:?}");
        metrics.body.lines().count()
    }
}

fn endure(day: &Day, growth: &Growth) {
    let it = Installation::new();
    it.set_up_daemon("registry:\n  cleanup_seconds: 1\n");
    let mut daemon = Daemon::start(&it, &[]);
    daemon.serves(&it);
    it.create_dev(86_400).succeeded();
    let folder = it.root().join("dags");
    fs::create_dir(&folder).expect("a folder");
    let watch = it.dev("watch add", &[folder.to_str().expect("text"), "--json"]).succeeded().json();
    let endurance = Endurance { it: &it, watch: text(&watch["id"]).to_owned() };

    let mut seen: Vec<Evening> = Vec::new();
    for number in 0..DAYS {
        endurance.work(day, number);
        endurance.rests();
        endurance.sleep();
        let evening = Evening {
            footprint: Footprint::of(daemon.0.id(), &it.home()),
            content_kib: endurance.content_kib(),
            records: endurance.records(),
            series: endurance.series(),
        };
        println!("day {}: {evening}", number + 1);
        seen.push(evening);
    }

    let count =
        |table: &str| rows(&it.home().join("data/registry.db"), &format!("SELECT count(*) FROM {table}"))[0][0].clone();
    // The operations of the last six days, which are at most seven days old by now, and whatever the environment has had.
    let kept = count("operation").as_u64().expect("a number") as usize;
    assert!((6 * 2 * day.environments..=7 * 2 * day.environments).contains(&kept), "{kept} operations");
    assert_eq!(count("idempotency"), 0);
    let uploads = endurance.get(&format!("watches/{}", endurance.watch))["uploads"].as_u64().expect("a number");
    assert!(uploads >= (DAYS * day.saves) as u64, "{uploads} uploads");

    let (before, after) = (&seen[STEADY - 1], &seen[DAYS - 1]);
    let within = |what: &str, before: u64, after: u64, more: u64| {
        assert!(after <= before + more, "{what} grew from {before} to {after}, by more than {more}");
    };
    // The least of some days: what a moment takes goes again, and what is lost is lost on each of them.
    let least = |what: &str, of: fn(&Footprint) -> u64, more: u64| {
        let least = |days: &[Evening]| days.iter().map(|day| of(&day.footprint)).min().expect("days");
        within(what, least(&seen[STEADY - 3..STEADY]), least(&seen[DAYS - 3..]), more);
    };
    let records_kib = after.records.saturating_sub(before.records) * RECORD_KIB;
    least("the memory (KiB)", |it| it.memory_kib, growth.memory_kib + records_kib);
    least("open files", |it| it.files as u64, 4);
    least("threads", |it| it.threads as u64, 2);
    least("children", |it| it.children as u64, 2);
    // What is forgotten makes room, but not each page is filled again: less than what one more day would leave there.
    let one_day = (before.content_kib / STEADY as u64).max(512);
    within("what the registry holds (KiB)", before.content_kib, after.content_kib, one_day);
    within("series of figures", before.series as u64, after.series as u64, 0);
    let (before, content_kib, after) = (&before.footprint, after.content_kib, &after.footprint);
    // SQLite never makes a file smaller, or the log of a busy hour.
    within("the registry's files (KiB)", content_kib * 3 / 2, after.registry_kib, 8 << 10);
    within("Local Modal's database (KiB)", before.modal_kib, after.modal_kib, growth.modal_kib);
    within("the Volumes (KiB)", before.volumes_kib, after.volumes_kib, 256);
    within("the rest of the home (KiB)", before.rest_kib, after.rest_kib, growth.rest_kib);
    breakdown(&it.home());
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().success(), "{}", it.log());
}

/// Where the room goes, for whoever reads the figures.
fn breakdown(home: &Path) {
    let largest = std::process::Command::new("du").args(["-k", "-d", "3"]).arg(home).output().expect("du runs");
    let mut lines: Vec<_> = std::str::from_utf8(&largest.stdout).expect("text").lines().collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.split('\t').next().and_then(|kib| kib.parse::<u64>().ok())));
    lines.iter().take(20).for_each(|line| println!("{line}"));
    let kinds = "SELECT kind, count(*) FROM record GROUP BY kind ORDER BY 2 DESC";
    println!("{:?}", rows(&home.join("data/modal/state.db"), kinds));
}
