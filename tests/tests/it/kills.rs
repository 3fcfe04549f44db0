//! A daemon that is killed again and again while clients write: what it answered is there, and comes to its end.

mod clients;

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, ScopedJoinHandle},
    time::{Duration, SystemTime},
};

use clients::{Client, ENOUGH, config};
use integration_tests::{
    Installation,
    daemon::Daemon,
    databases::{is_whole, rows},
    eventually,
    requests::Request,
    text,
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use rustix::process::Signal;
use serde_json::Value;

/// Set to repeat a failure, at least its pauses.
const SEED: &str = "KILLS_SEED";

/// When the daemon is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Not long after it was started, whether it serves or not.
    Starting,
    /// Among requests that are answered from the registry.
    Writing,
    /// Once it has had the time to check files, deploy, and have the scheduler work.
    Working,
}

impl Moment {
    fn pause(self, random: &mut StdRng) -> Duration {
        let milliseconds = match self {
            Self::Starting => 1..=150,
            Self::Writing => 1..=900,
            Self::Working => 3000..=8000,
        };
        Duration::from_millis(random.random_range(milliseconds))
    }
}

fn moments(random: &mut StdRng) -> Vec<Moment> {
    let mut moments = [vec![Moment::Starting; 4], vec![Moment::Writing; 8], vec![Moment::Working; 2]].concat();
    moments.shuffle(random);
    moments
}

fn databases(it: &Installation) -> [PathBuf; 2] {
    ["data/registry.db", "data/modal/state.db"].map(|name| it.home().join(name))
}

/// Lets the daemon live for random times, and kills it; the last one lives on.
fn kill_at_random(it: &Installation, daemon: &mut Daemon, go_on: impl Fn() -> bool) {
    let drawn = || SystemTime::UNIX_EPOCH.elapsed().expect("a time").subsec_nanos().into();
    let seed: u64 = std::env::var(SEED).map_or_else(|_| drawn(), |seed| seed.parse().expect("a number"));
    println!("{SEED}={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for moment in moments(&mut random) {
        if !matches!(moment, Moment::Starting) {
            daemon.serves(it);
        }
        // No condition: the very point is to know nothing of what it is doing.
        thread::sleep(moment.pause(&mut random));
        daemon.crash();
        databases(it).iter().for_each(|database| is_whole(database));
        *daemon = Daemon::start(it, &[]);
        if !go_on() {
            break;
        }
    }
    daemon.serves(it);
}

/// Sets the sign to stop also when the test fails, as its threads are waited for.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn acknowledged_changes_survive_kills() {
    let it = Installation::new();
    let mut daemon = Daemon::start(&it, &[]);
    daemon.serves(&it);
    let config_file = it.write("config.yaml", &serde_json::to_string(&config(60)).expect("JSON"));
    it.dev("create", &["--config", config_file.to_str().expect("text")]).succeeded();
    it.upload("greeting.py");
    it.dev("tick", &[]).succeeded();

    let stop = AtomicBool::new(false);
    let socket = it.socket();
    let client = |name| Client { name, socket: &socket, stop: &stop };
    let (fleeting, others, configs, watches, files, variables, runs, reads) = thread::scope(|scope| {
        let fleeting = scope.spawn(|| client("fleeting").environments());
        let others = scope.spawn(|| client("other").environments());
        let configs = scope.spawn(|| client("dev").configurations());
        let watches = scope.spawn(|| client("watched").watches(it.root()));
        let files = scope.spawn(|| client("changing").dag_files());
        let variables = scope.spawn(|| client("variable").variables());
        let runs = scope.spawn(|| client("greeting").runs());
        let reads = scope.spawn(|| client("reader").reads());
        let all_well =
            || !reads.is_finished() && !configs.is_finished() && !watches.is_finished() && !files.is_finished();
        let stopping = Stopping(&stop);
        kill_at_random(&it, &mut daemon, all_well);
        drop(stopping);
        fn ended<T>(handle: ScopedJoinHandle<'_, T>) -> T {
            handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }
        (
            ended(fleeting),
            ended(others),
            ended(configs),
            ended(watches),
            ended(files),
            ended(variables),
            ended(runs),
            ended(reads),
        )
    });
    println!(
        "{} and {} environments, {} configurations, {} watches, {} files, {} variables, {} runs, {reads} reads",
        fleeting.made, others.made, configs.0, watches.made, files.0, variables.0, runs
    );
    assert!(
        [fleeting.made, configs.0 as usize, watches.made].iter().all(|made| *made > ENOUGH) && files.0 > 1 && runs > 0,
        "too little was done"
    );

    // Once more, with nobody there: the answers to the very last requests count, too.
    daemon.crash();
    databases(&it).iter().for_each(|database| is_whole(database));
    daemon = Daemon::start(&it, &[]);
    daemon.serves(&it);
    let get = |path: &str| Request::new(format!("GET {path}")).send(&socket).expect("an answer").expect(&[200]);
    let mut last = String::new();
    eventually("the end of all operations", || {
        let running = get("/v1/operations?state=running");
        let shown = format!("{running:#}");
        if shown != last {
            eprintln!("under way: {shown}");
            last = shown;
        }
        (running["total_entries"] == 0).then_some(())
    });

    // The environments that are wanted, as they were last wanted, and no others.
    let listed = get("/v1/environments?limit=100");
    let environments = listed["environments"].as_array().expect("environments");
    let names: BTreeSet<_> = environments.iter().map(|environment| text(&environment["name"])).collect();
    let resting: BTreeSet<_> = fleeting.resting.iter().chain(&others.resting).map(String::as_str).collect();
    assert_eq!(names, resting.iter().copied().chain(["dev"]).collect());
    for environment in environments {
        let state = if resting.contains(text(&environment["name"])) { "degraded" } else { "ready" };
        assert_eq!(environment["state"], state, "{environment}");
    }
    let dev = &environments[environments.iter().position(|one| one["name"] == "dev").expect("dev")];
    assert_eq!(dev["config"]["scheduler"]["interval_seconds"], configs.1, "{dev}");
    assert_eq!(dev["generation"], configs.0 + 1, "a change was made twice");

    // Each request was carried out once.
    let registry = &databases(&it)[0];
    let twice = "SELECT environment, kind, count(*) FROM operation WHERE kind <> 'update'
                 GROUP BY environment, kind HAVING count(*) > 1";
    assert_eq!(rows(registry, twice), Vec::<Value>::new(), "done twice");
    let count = |query: &str| rows(registry, query)[0][0].as_i64().expect("a number");
    assert_eq!(count("SELECT count(*) FROM operation WHERE kind = 'create'"), (fleeting.made + others.made + 1) as i64);
    assert_eq!(count("SELECT count(*) FROM operation WHERE environment LIKE '%refused%'"), 0);
    assert_eq!(count("SELECT count(*) FROM idempotency WHERE status IS NULL"), 0, "a request without an end");
    assert_eq!(get("/v1/environments/dev/runs?dag_id=greeting")["total_entries"], runs);

    // What was uploaded and set is what is there.
    let found = get("/v1/watches");
    let found: BTreeSet<_> = found["watches"].as_array().expect("watches").iter().map(|one| text(&one["id"])).collect();
    assert_eq!(found, watches.kept.keys().map(String::as_str).collect());
    let dags = it.home().join("data/modal/volumes");
    let on_volume = |name: &str| {
        let volumes = fs::read_dir(&dags).expect("volumes").map(|entry| entry.expect("an entry").path());
        volumes.filter_map(|volume| fs::read_to_string(volume.join("dags").join(name)).ok()).collect::<Vec<_>>()
    };
    for folder in watches.kept.values().filter(|folder| clients::file_of(folder).exists()) {
        let name = clients::name_of_file(folder);
        eventually(&name, || (on_volume(&name) == [folder.as_str()]).then_some(()));
    }
    assert_eq!(on_volume("changing.py"), [clients::dag_file(files.0)]);
    let variable = get("/v1/environments/dev/variables/variable?show_values=true");
    assert_eq!(variable["value"], variables.0.to_string(), "{variable}");

    // Nothing is left over when it ends, of all its predecessors.
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().success(), "{}", it.log());
    assert_eq!(it.descendants(), Vec::<u32>::new());
}
