//! The checks: each judges one finding.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use airflow_serverless_api::{
    daemon::Version,
    diagnostics::{Diagnostics, DiskDiagnosis, EnvironmentDiagnosis, ModalDiagnosis, RuntimeDiagnosis},
    environment::{Condition, EnvironmentState, Reason, Target, UnregisteredEnvironment, UnregisteredEnvironmentList},
    home::Home,
    watch::{Watch, WatchMode},
};
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{daemon_status::DaemonStatus, error::CliError, printer::counted};

/// Limit on crons in Modal's starter plans; each environment has one.
const CRONS: usize = 5;
/// Tolerated difference between clocks, in seconds.
const SKEW: i64 = 5;
const LITTLE_SPACE: u64 = 2 << 30;
const NO_SPACE: u64 = 200 << 20;
/// A round trip longer than this, in seconds, causes a warning.
const SLOW: f64 = 5.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warning,
    Failure,
}

#[derive(Debug, Serialize)]
pub struct Check {
    pub name: String,
    pub verdict: Verdict,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

fn ok(name: impl Into<String>, detail: impl Into<String>) -> Check {
    Check { name: name.into(), verdict: Verdict::Ok, detail: detail.into(), fix: None }
}

fn warning(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { name: name.into(), verdict: Verdict::Warning, detail: detail.into(), fix: Some(fix.into()) }
}

fn failure(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { name: name.into(), verdict: Verdict::Failure, detail: detail.into(), fix: Some(fix.into()) }
}

/// The daemon's program.
pub fn binary(path: &Path) -> Check {
    // A bare name is searched in the PATH when it is started.
    if path.components().count() == 1 || path.is_file() {
        return ok("program", path.display().to_string());
    }
    let fix = "set AIRFLOW_SERVERLESS_DAEMON to the path of airflowd, or unset it to use the one beside this program";
    failure("program", format!("there is no {}", path.display()), fix)
}

/// Checks that the daemon's folders are private.
pub fn settings_folder(home: &Home) -> Check {
    let mode = |path: &Path| fs::metadata(path).ok().map(|found| found.permissions().mode() & 0o077);
    let open: Vec<_> =
        [&home.data, &home.state, &home.runtime].into_iter().filter(|path| mode(path) > Some(0)).collect();
    match open.first() {
        None => ok("folders", home.data.display().to_string()),
        Some(path) => {
            let path = path.display();
            warning("folders", format!("other users can read {path}"), format!("chmod 700 {path}"))
        }
    }
}

pub fn no_daemon(found: &DaemonStatus) -> Check {
    failure("daemon", found.describe(), found.hint().unwrap_or_default())
}

pub fn no_diagnosis(why: &CliError) -> Check {
    failure("diagnosis", why.problem().detail, "`airflow-serverless daemon restart` starts a daemon of this version")
}

pub fn daemon(version: &Version) -> Check {
    ok("daemon", format!("airflowd {} is running (pid {})", version.version, version.pid))
}

pub fn socket(home: &Home) -> Check {
    let path = home.socket();
    match fs::metadata(&path).map(|found| found.permissions().mode() & 0o777) {
        Ok(0o600) => ok("socket", format!("only this user can access {}", path.display())),
        Ok(mode) => {
            let detail = format!("{} has mode {mode:o}: others may be able to use the daemon", path.display());
            failure("socket", detail, format!("chmod 600 {}", path.display()))
        }
        Err(error) => failure("socket", format!("{}: {error}", path.display()), "`airflow-serverless daemon restart`"),
    }
}

pub fn versions(daemon: &Version) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    let others = format!("Airflow {}, Modal SDK {}", daemon.airflow_version, daemon.modal_version);
    if daemon.version == own {
        return ok("versions", format!("airflow-serverless and airflowd {own}, {others}"));
    }
    let detail = format!("this is airflow-serverless {own}, and airflowd is {}; {others}", daemon.version);
    warning("versions", detail, "run `airflow-serverless daemon restart`, or update the older of the two")
}

/// Checks the user's inotify limits against the usage of all processes of the user.
pub fn inotify() -> Check {
    let name = "folder watches";
    let limit = |what: &str| {
        let text = fs::read_to_string(format!("/proc/sys/fs/inotify/max_user_{what}")).ok()?;
        text.trim().parse::<usize>().ok()
    };
    let (Some(most_watches), Some(most_instances)) = (limit("watches"), limit("instances")) else {
        return ok(name, "this system has no such limits");
    };
    let (instances, watches) = inotify_used();
    let detail = format!("{watches} of {most_watches} watches and {instances} of {most_instances} instances in use");
    let is_little = |used: usize, most: usize| used * 10 >= most * 8;
    let setting = |what: &str, more: usize| format!("fs.inotify.max_user_{what}={more}");
    let settings: Vec<_> = [
        is_little(watches, most_watches).then(|| setting("watches", most_watches.saturating_mul(4).max(524_288))),
        // Each watch takes one instance, whatever the number of its subfolders.
        is_little(instances, most_instances).then(|| setting("instances", most_instances.saturating_mul(4).max(1024))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if settings.is_empty() {
        return ok(name, detail);
    }
    warning(name, detail, format!("`sudo sysctl {}`, and the same in /etc/sysctl.d", settings.join(" ")))
}

/// Counts inotify instances and watches of this user's processes, as far as they are visible.
fn inotify_used() -> (usize, usize) {
    let user = rustix::process::getuid().as_raw();
    let entries = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let own = entries("/proc".into()).filter(|process| process.metadata().is_ok_and(|found| found.uid() == user));
    let descriptors = own.flat_map(|process| entries(process.path().join("fd")));
    let instances =
        descriptors.filter(|it| fs::read_link(it.path()).is_ok_and(|to| to.ends_with("anon_inode:inotify")));
    let watches = instances.map(|instance| {
        let path = instance.path();
        let info = path.ancestors().nth(2).zip(path.file_name()).map(|(it, name)| it.join("fdinfo").join(name));
        let text = info.and_then(|info| fs::read_to_string(info).ok()).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("inotify ")).count()
    });
    watches.fold((0, 0), |(instances, all), watches| (instances + 1, all + watches))
}

/// Reports the watches without file events.
pub fn polling(watches: &[Watch]) -> Option<Check> {
    let polled: Vec<_> = watches.iter().filter(|watch| watch.mode == WatchMode::Polling).collect();
    let first = polled.first()?;
    let names: Vec<_> =
        polled.iter().take(5).map(|watch| format!("{} ({})", watch.directory, watch.environment)).collect();
    let more = if polled.len() > names.len() { " …" } else { "" };
    let why = first.warning.as_deref().unwrap_or("configured in airflowd.yaml");
    let detail = format!("polled instead of watched: {}{more}: {why}", names.join(", "));
    let fix = "raise the limit and restart the daemon; on a network file system polling is the only way";
    Some(warning("polled folders", detail, fix))
}

/// Judges the daemon's diagnostics, which were requested between two times.
pub fn diagnosed(found: &Diagnostics, asked: DateTime<Utc>, answered: DateTime<Utc>) -> Vec<Check> {
    let mut checks = vec![
        runtime(&found.runtime),
        modal(&found.modal),
        credentials(found.cloud.as_ref()),
        clock(found.time, (asked, answered), found.cloud.as_ref().and_then(|cloud| cloud.clock_ahead)),
        crons(&found.environments),
        registry(&found.unregistered),
        disk(&found.disk),
        left_overs(&found.left_overs),
    ];
    checks.extend(
        found
            .environments
            .iter()
            .flat_map(|it| {
                [Some(environment(it)), it.scheduler.as_ref().map(|found| scheduler(it, found)), Some(volume(it))]
            })
            .flatten(),
    );
    checks
}

fn runtime(found: &RuntimeDiagnosis) -> Check {
    let name = "Python runtime";
    match (found.complete, &found.python, &found.error) {
        (true, ..) => ok(name, format!("{} is complete", found.interpreter)),
        (false, Some(python), _) => ok(name, format!("will be installed with {python} for the next environment")),
        (false, None, error) => {
            let detail = error.clone().unwrap_or_else(|| "there is no Python 3.11 or newer".to_owned());
            failure(name, detail, "install Python 3.11 or newer, or set AIRFLOW_SERVERLESS_PYTHON for the daemon")
        }
    }
}

/// Others may have deployed to the same workspace; everything on Local Modal is this daemon's own.
fn registry(found: &UnregisteredEnvironmentList) -> Check {
    let name = "registry";
    let (local, others): (Vec<_>, Vec<_>) = found.environments.iter().partition(|it| it.target == Target::Local);
    let names = |of: &[&UnregisteredEnvironment]| of.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
    match (local.as_slice(), others.as_slice(), &found.error) {
        ([first, ..], ..) => warning(
            name,
            format!("Local Modal has environments that are not registered: {}", names(&local)),
            format!("register each with `airflow-serverless env adopt`, such as `--env {}`", first.name),
        ),
        (_, _, Some(error)) => ok(name, format!("could not check for unregistered environments: {error}")),
        ([], [], _) => ok(name, "all deployed environments are registered"),
        _ => ok(name, format!("not registered, in Modal's cloud: {} (`env adopt` registers them)", names(&others))),
    }
}

fn modal(found: &ModalDiagnosis) -> Check {
    match &found.error {
        None => ok("Modal", format!("Local Modal responds at {}", found.server_url)),
        Some(error) => failure("Modal", error.clone(), "`airflow-serverless daemon restart`; its log shows more"),
    }
}

fn credentials(found: Option<&ModalDiagnosis>) -> Check {
    let name = "credentials";
    match found {
        None => ok(name, "not needed for Local Modal"),
        Some(ModalDiagnosis { server_url, error: None, .. }) => ok(name, format!("accepted by {server_url}")),
        Some(ModalDiagnosis { error: Some(error), .. }) => {
            failure(name, error.clone(), "`airflow-serverless auth login` replaces them; `auth logout` removes them")
        }
    }
}

/// Compares the daemon's clock with those of this program and of Modal's cloud.
fn clock(daemon: DateTime<Utc>, (asked, answered): (DateTime<Utc>, DateTime<Utc>), ahead: Option<i64>) -> Check {
    let skew = (asked - daemon).max(daemon - answered).num_seconds();
    let fix = "set both clocks by NTP (`timedatectl set-ntp true`)";
    if skew > SKEW {
        return warning("clock", format!("the daemon's clock is {skew} s off, and so are schedules"), fix);
    }
    match ahead {
        Some(ahead) if ahead.abs() > SKEW => {
            let side = if ahead > 0 { "ahead of" } else { "behind" };
            warning("clock", format!("this machine's clock is {} s {side} Modal's", ahead.abs()), fix)
        }
        Some(_) => ok("clock", format!("{} UTC, the same as Modal's", daemon.format("%Y-%m-%d %H:%M:%S"))),
        None => ok("clock", format!("{} UTC", daemon.format("%Y-%m-%d %H:%M:%S"))),
    }
}

fn crons(environments: &[EnvironmentDiagnosis]) -> Check {
    let count = environments.len();
    let in_cloud = environments.iter().filter(|environment| environment.target != Target::Local).count();
    let detail =
        format!("{}, each with one; {in_cloud} in Modal's cloud, which limits them", counted(count, "environment"));
    if in_cloud <= CRONS {
        return ok("crons", detail);
    }
    // Neither the plan nor the workspace's other crons are known here.
    let fix = format!("starter plans allow {CRONS} crons per workspace; delete environments if yours is one");
    warning("crons", detail, fix)
}

fn disk(found: &DiskDiagnosis) -> Check {
    if let Some(error) = &found.error {
        return failure(
            "disk",
            format!("{}: {error}", found.path),
            "make the data folder readable and writable for the daemon's user",
        );
    }
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let detail = format!("{} of {} free at {}", gib(found.free_bytes), gib(found.total_bytes), found.path);
    let fix = "free disk space: Volumes, XComs and logs of all environments are stored there";
    match found.free_bytes {
        0..NO_SPACE => failure("disk", detail, fix),
        NO_SPACE..LITTLE_SPACE => warning("disk", detail, fix),
        _ => ok("disk", detail),
    }
}

fn left_overs(paths: &[String]) -> Check {
    let name = "temporary files";
    let Some(first) = paths.first() else { return ok(name, "none from earlier daemons") };
    let detail = format!("{} left by earlier daemons, such as {first}", paths.len());
    let fix: Vec<&str> = paths.iter().take(5).map(String::as_str).collect();
    warning(name, detail, format!("rm -r {}{}", fix.join(" "), if paths.len() > 5 { " …" } else { "" }))
}

fn environment(found: &EnvironmentDiagnosis) -> Check {
    let name = format!("environment {}", found.name);
    let fix = format!("`airflow-serverless env show --env {}` shows why; the daemon retries", found.name);
    match found.state {
        EnvironmentState::Ready => ok(name, "ready"),
        EnvironmentState::Progressing => ok(name, "in progress"),
        EnvironmentState::Degraded => failure(name, "degraded", fix),
        #[allow(unreachable_patterns, reason = "states that are added need no word here")]
        other => warning(name, other.to_string(), fix),
    }
}

fn scheduler(environment: &EnvironmentDiagnosis, found: &Condition) -> Check {
    let (name, environment) = (format!("scheduler of {}", environment.name), &environment.name);
    let detail = found.message.clone();
    match found.reason {
        _ if found.status => ok(name, detail),
        Reason::Quarantined => warning(name, detail, format!("`airflow-serverless dags errors --env {environment}`")),
        Reason::DatabaseDamaged | Reason::DatabaseMissing => {
            let fix = format!(
                "`airflow-serverless env backups --env {environment}` lists the backups, and `env rollback` restores one"
            );
            failure(name, detail, fix)
        }
        Reason::DatabaseNewer => failure(name, detail, "install the newer version of airflow-serverless again"),
        Reason::DiskFull => failure(name, detail, "free disk space where the database and the Volume are"),
        _ => failure(name, detail, format!("`airflow-serverless logs --env {environment}` shows the output of ticks")),
    }
}

fn volume(found: &EnvironmentDiagnosis) -> Check {
    let name = format!("Volume of {}", found.name);
    match (found.round_trip, &found.error) {
        (_, Some(error)) => {
            failure(name, format!("{}: {error}", found.volume), "`airflow-serverless daemon logs` shows more")
        }
        (Some(seconds), None) if seconds > SLOW => {
            warning(name, format!("writing and reading a file took {seconds:.1} s"), "check the load of this machine")
        }
        (Some(seconds), None) => ok(name, format!("wrote and read a file in {:.0} ms", seconds * 1000.0)),
        (None, None) => ok(name, "not created yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_skew_beyond_five_seconds_is_a_warning() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).expect("a time");
        for (daemon, verdict) in
            [(95, Verdict::Ok), (130, Verdict::Ok), (94, Verdict::Warning), (136, Verdict::Warning)]
        {
            assert_eq!(clock(at(daemon), (at(100), at(130)), None).verdict, verdict, "{daemon}");
        }
        for (ahead, verdict) in [(-5, Verdict::Ok), (5, Verdict::Ok), (-6, Verdict::Warning), (6, Verdict::Warning)] {
            assert_eq!(clock(at(100), (at(100), at(130)), Some(ahead)).verdict, verdict, "{ahead}");
        }
    }

    #[test]
    fn crons_above_the_starter_plan_are_a_warning() {
        let environment = |number: usize| EnvironmentDiagnosis {
            name: format!("e{number}").parse().expect("a name"),
            target: Target::Modal,
            state: EnvironmentState::Ready,
            volume: String::new(),
            round_trip: None,
            error: None,
            scheduler: None,
        };
        let verdict = |count| crons(&(0..count).map(environment).collect::<Vec<_>>()).verdict;
        assert_eq!((verdict(CRONS), verdict(CRONS + 1)), (Verdict::Ok, Verdict::Warning));
    }

    #[test]
    fn low_disk_space_is_a_warning_then_a_failure() {
        let free = |free_bytes| DiskDiagnosis { path: "/".into(), free_bytes, total_bytes: 100 << 30, error: None };
        let verdicts = [3 << 30, 1 << 30, 1 << 20].map(|bytes| disk(&free(bytes)).verdict);
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Warning, Verdict::Failure]);
    }

    #[test]
    fn incomplete_runtime_without_python_is_a_failure() {
        let found = |complete, python: Option<&str>| RuntimeDiagnosis {
            interpreter: "/venv/bin/python".into(),
            complete,
            python: python.map(str::to_owned),
            error: None,
        };
        let verdicts =
            [(true, None), (false, Some("python3")), (false, None)].map(|(c, p)| runtime(&found(c, p)).verdict);
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Ok, Verdict::Failure]);
    }
}
