//! Checks everything that the daemon needs, for `airflow-serverless doctor`.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use airflow_serverless_api::{
    diagnostics::{Diagnostics, DiskDiagnosis, EnvironmentDiagnosis, ModalDiagnosis, RuntimeDiagnosis},
    environment::{ConditionKind, Environment, EnvironmentState, ListEnvironments, UnregisteredEnvironmentList},
    home::Home,
    page::Page,
};
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use modal_client::File;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::{
    airflow::Airflow,
    error::Result,
    modal::{LocalModalHealth, Modal},
    registry::Registry,
    report::chain,
    runtime::Runtime,
};

/// Time limit for each part.
const LIMIT: Duration = Duration::from_secs(20);
/// Number of environments checked concurrently.
const AT_A_TIME: usize = 8;
/// No check of another environment begins after this: the response has a time limit, too.
const BEGIN_WITHIN: Duration = Duration::from_secs(90);
/// Prefixes of the daemon's own temporary folders.
const TEMPORARY: [&str; 1] = ["airflow-serverless-"];
/// Younger folders may be in use.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// The objects to check.
pub struct Diagnostician {
    pub home: Home,
    pub registry: Registry,
    pub airflow: Arc<Airflow>,
    pub runtime: Runtime,
    pub modal: Modal,
    pub heartbeat: LocalModalHealth,
}

impl Diagnostician {
    pub async fn diagnose(&self) -> Result<Diagnostics> {
        let all = ListEnvironments { limit: Some(Page::LARGEST_LIMIT), ..ListEnvironments::default() };
        let all = self.registry.list_environments(&all).await?.environments;
        let until = Instant::now() + BEGIN_WITHIN;
        let looks: Vec<_> = all.into_iter().map(|environment| self.environment(environment, until)).collect();
        let (runtime, modal, cloud, environments, unregistered) = tokio::join!(
            self.runtime(),
            within("Local Modal", self.heartbeat.check()),
            self.cloud(),
            stream::iter(looks).buffered(AT_A_TIME).collect(),
            self.unregistered(),
        );
        Ok(Diagnostics {
            time: Utc::now(),
            runtime,
            modal: ModalDiagnosis {
                server_url: self.modal.local_server_url().to_owned(),
                // It runs on this machine.
                clock_ahead: None,
                error: modal.err(),
            },
            cloud,
            environments,
            unregistered,
            disk: disk(&self.home.data),
            left_overs: left_overs(&[std::env::temp_dir(), self.home.cache.join("validation")]),
        })
    }

    /// Checks whether Modal's cloud accepts the credentials, if there are any, and reads its clock.
    async fn cloud(&self) -> Option<ModalDiagnosis> {
        let mut clock_ahead = None;
        let (server_url, reached) = match self.modal.cloud_server_url() {
            Ok(None) => return None,
            Ok(Some(server_url)) => {
                let reaching = async {
                    self.modal.check_cloud().await.map_err(|error| chain(&error))?;
                    let asked = Utc::now();
                    // The server may accept the credentials and still not report its time.
                    let time = self.modal.cloud_time().await.ok().flatten();
                    clock_ahead = time.map(|time| ahead(time, asked, Utc::now()));
                    Ok(())
                };
                (server_url, within("Modal's cloud", reaching).await)
            }
            Err(error) => (String::new(), Err(chain(&error))),
        };
        Some(ModalDiagnosis { server_url, clock_ahead, error: reached.err() })
    }

    async fn unregistered(&self) -> UnregisteredEnvironmentList {
        let failed = |error| UnregisteredEnvironmentList { error: Some(error), ..Default::default() };
        match timeout(LIMIT, self.registry.unregistered_environments()).await {
            Ok(found) => found.unwrap_or_else(|error| failed(chain(&error))),
            Err(_) => failed(format!("Modal did not answer within {} s", LIMIT.as_secs())),
        }
    }

    async fn runtime(&self) -> RuntimeDiagnosis {
        let python = self.runtime.base().await;
        let error = python.as_ref().err().map(|error| chain(error));
        RuntimeDiagnosis {
            interpreter: self.runtime.interpreter().display().to_string(),
            complete: self.runtime.is_complete().await,
            python: python.ok().map(|path| path.display().to_string()),
            error,
        }
    }

    async fn environment(&self, environment: Environment, until: Instant) -> EnvironmentDiagnosis {
        let volume = environment.names.volume.clone();
        let started = Instant::now();
        let has_volume = environment.observed_generation > 0 && environment.state != EnvironmentState::Deleting;
        let outcome = if !has_volume {
            Ok(None)
        } else if started > until {
            Err(format!("it was not asked, as others took more than {} s", BEGIN_WITHIN.as_secs()))
        } else {
            within("the Volume", self.round_trip(&environment)).await.map(|()| Some(started.elapsed().as_secs_f64()))
        };
        let scheduler = if has_volume {
            let environment = self.airflow.environment(&environment.name).await.unwrap_or_else(|_| environment.clone());
            environment.condition(ConditionKind::SchedulerHealthy).cloned()
        } else {
            None
        };
        let (name, target, state) = (environment.name, environment.target, environment.state);
        let (round_trip, error) = outcome.map_or_else(|error| (None, Some(error)), |seconds| (seconds, None));
        EnvironmentDiagnosis { name, target, state, volume, round_trip, error, scheduler }
    }

    /// Writes a file, reads it and removes it. (Must not recreate a Volume that is gone.)
    async fn round_trip(&self, environment: &Environment) -> std::result::Result<(), String> {
        let failed = |error: modal_client::Error| chain(&error);
        let client = self.modal.client(environment.target, &environment.config).await;
        let client = client.map_err(|error| chain(&error))?;
        let found = client.find_volume(&environment.names.volume).await.map_err(failed)?;
        let volume = found.ok_or_else(|| format!("there is no such Volume at {}", environment.target))?;
        let content = Uuid::new_v4().to_string().into_bytes();
        let path = format!("/.diagnosis-{}", Uuid::new_v4());
        volume.put(vec![File { path: path.clone(), content: content.clone().into() }]).await.map_err(failed)?;
        let read = volume.read(&path).await;
        volume.remove(&path).await.map_err(failed)?;
        match read.map_err(failed)? {
            Some(found) if found == content => Ok(()),
            Some(_) => Err("the file came back with other content".to_owned()),
            None => Err("the file that was written is not there".to_owned()),
        }
    }
}

async fn within(
    what: &str,
    look: impl Future<Output = std::result::Result<(), String>>,
) -> std::result::Result<(), String> {
    timeout(LIMIT, look).await.unwrap_or_else(|_| Err(format!("{what} did not answer within {} s", LIMIT.as_secs())))
}

/// Returns by how many seconds this clock is ahead of a server's, which was read between two local times. The server
/// reports whole seconds.
fn ahead(server: DateTime<Utc>, asked: DateTime<Utc>, answered: DateTime<Utc>) -> i64 {
    let (server, asked, answered) = (server.timestamp(), asked.timestamp(), answered.timestamp());
    if server < asked {
        asked - server
    } else if server > answered {
        answered - server
    } else {
        0
    }
}

fn disk(path: &Path) -> DiskDiagnosis {
    let found = rustix::fs::access(path, rustix::fs::Access::WRITE_OK).and_then(|()| rustix::fs::statvfs(path));
    let bytes = |blocks: fn(&rustix::fs::StatVfs) -> u64| found.as_ref().map_or(0, |disk| blocks(disk) * disk.f_frsize);
    DiskDiagnosis {
        path: path.display().to_string(),
        free_bytes: bytes(|disk| disk.f_bavail),
        total_bytes: bytes(|disk| disk.f_blocks),
        error: found.as_ref().err().map(ToString::to_string),
    }
}

/// Returns leftovers of earlier daemons of this user in the folders.
fn left_overs(folders: &[PathBuf]) -> Vec<String> {
    let user = rustix::process::getuid().as_raw();
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().filter_map(Result::ok);
    let is_ours = |name: &str| Uuid::parse_str(name).is_ok() || TEMPORARY.iter().any(|prefix| name.starts_with(prefix));
    let is_stale = |at: SystemTime| at.elapsed().is_ok_and(|age| age > STALE);
    let stale = entries.filter(|entry| {
        let metadata = entry.metadata().ok();
        let is_old = metadata.is_some_and(|found| found.uid() == user && found.modified().is_ok_and(is_stale));
        is_old && entry.file_name().to_str().is_some_and(is_ours)
    });
    let mut found: Vec<_> = stale.map(|entry| entry.path().display().to_string()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_old_temporary_files_are_leftovers() {
        let folder = tempfile::tempdir().expect("a folder");
        let make = |name: &str, days: u64| {
            let path = folder.path().join(name);
            let file = std::fs::File::create(&path).expect("a file");
            file.set_modified(SystemTime::now() - Duration::from_secs(days * 24 * 3600 + 60)).expect("its time");
            path.display().to_string()
        };
        let old = make("airflow-serverless-validator-abc", 1);
        make("airflow-serverless-validator-new", 0);
        make("somebody-elses", 9);
        assert_eq!(left_overs(&[folder.path().to_owned(), folder.path().join("missing")]), [old]);
    }

    #[test]
    fn clock_within_the_round_trip_is_not_ahead() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).expect("a time");
        let ahead = [90, 100, 105, 110, 117].map(|server| ahead(at(server), at(100), at(110)));
        assert_eq!(ahead, [10, 0, 0, 0, -7]);
    }

    #[test]
    fn disk_space_is_read_and_missing_path_is_an_error() {
        let found = disk(Path::new("/"));
        assert!(found.error.is_none() && found.total_bytes >= found.free_bytes && found.total_bytes > 0, "{found:?}");
        assert!(disk(Path::new("/nowhere/at/all")).error.is_some());
    }
}
