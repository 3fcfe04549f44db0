//! Tracks which files define which DAGs: as last published by the scheduler, and as validated since.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use airflow_serverless_api::{
    environment::{Environment, EnvironmentName},
    watch::FileWarning,
};
use chrono::{DateTime, Utc};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{Deployed, dags::Definition};
use crate::error::Result;

/// How long the scheduler may take to parse an uploaded file.
const PARSED_AFTER: Duration = Duration::from_secs(600);

/// How long loaded definitions count as recent. Other daemons and other clients of the Volume upload files, too.
const LOADED_FOR: Duration = Duration::from_secs(60);

/// The definitions known for each environment, in memory only: uploads from before a restart have been parsed by now.
#[derive(Default)]
pub(super) struct Definitions(Mutex<HashMap<EnvironmentName, Known>>);

#[derive(Default)]
struct Known {
    /// Creation time of the environment; tells it from a later one of the same name.
    created_at: DateTime<Utc>,
    /// {file: ids of its DAGs}, as the scheduler parsed it.
    parsed: BTreeMap<String, BTreeSet<String>>,
    /// {id of a DAG: the file whose definition is used}.
    owners: HashMap<String, String>,
    loaded_at: Option<Instant>,
    /// {file: (when it was uploaded or removed, ids of its DAGs)}, as it was validated.
    uploaded: BTreeMap<String, (Instant, BTreeSet<String>)>,
}

/// A DAG id that several files define.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedId {
    pub dag_id: String,
    /// By name.
    pub files: Vec<String>,
    /// The file whose definition is used; `None` if the scheduler has not parsed it yet.
    pub owner: Option<String>,
}

/// Limit on the ids in a warning.
const MOST_IDS: usize = 3;

/// Returns one warning for each pair of a file and the file that takes precedence, however many DAGs they share. It
/// belongs to the first file of the pair.
pub(crate) fn warnings<'a>(pairs: impl IntoIterator<Item = (&'a SharedId, &'a str, &'a str)>) -> Vec<FileWarning> {
    let mut ids: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (shared, file, other) in pairs {
        ids.entry((file, other, shared.owner.as_deref())).or_default().push(&shared.dag_id);
    }
    let warning = |((file, other, owner), ids): ((&str, &str, Option<&str>), Vec<&str>)| {
        let what = match ids.as_slice() {
            [id] => format!("DAG {id}"),
            ids if ids.len() > MOST_IDS => format!("{} DAGs ({}, …)", ids.len(), ids[..MOST_IDS].join(", ")),
            ids => format!("the DAGs {}", ids.join(", ")),
        };
        let (the_one, it) = if ids.len() == 1 { ("the one", "counts") } else { ("those", "count") };
        let rule = match owner {
            Some(owner) if owner == file => format!("{the_one} in {owner} {it}"),
            Some(owner) if ids.len() == 1 => format!("the one in {owner} counts, until that file defines it no more"),
            Some(owner) => format!("those in {owner} count, until that file defines them no more"),
            None => format!("{the_one} that the scheduler parses first {it}"),
        };
        FileWarning { file: file.to_owned(), message: format!("{file} and {other} both define {what}: {rule}") }
    };
    ids.into_iter().map(warning).collect()
}

impl Known {
    fn shared(&self) -> Vec<SharedId> {
        let parsed = self.parsed.iter().filter(|(file, _)| !self.uploaded.contains_key(*file));
        let uploaded = self.uploaded.iter().map(|(file, (_, ids))| (file, ids));
        let mut files: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
        for (file, ids) in parsed.chain(uploaded) {
            for id in ids {
                files.entry(id).or_default().insert(file);
            }
        }
        let shared = files.into_iter().filter(|(_, files)| files.len() > 1);
        let shared = shared.map(|(dag_id, files)| SharedId {
            dag_id: dag_id.clone(),
            owner: self.owners.get(dag_id).filter(|owner| files.contains(owner)).cloned(),
            files: files.into_iter().cloned().collect(),
        });
        shared.collect()
    }

    /// Whether the definitions are too old, or one of these files shares an id: only the scheduler knows which file is
    /// used.
    fn needs_load(&self, files: &[&str]) -> bool {
        let are_shared = || self.shared().iter().any(|it| it.files.iter().any(|file| files.contains(&file.as_str())));
        self.loaded_at.is_none_or(|at| at.elapsed() > LOADED_FOR) || are_shared()
    }

    fn load(&mut self, definitions: Vec<Definition>) {
        self.loaded_at = Some(Instant::now());
        (self.parsed, self.owners) = Default::default();
        self.uploaded.retain(|_, (at, _)| at.elapsed() < PARSED_AFTER);
        for Definition { path, dag_id, defined_in } in definitions {
            // A DAG in an archive is defined in a file below the archive.
            if defined_in == path || defined_in.starts_with(&format!("{path}/")) {
                self.owners.insert(dag_id.clone(), path.clone());
            }
            self.parsed.entry(path).or_default().insert(dag_id);
        }
    }
}

impl Definitions {
    fn lock(&self) -> MutexGuard<'_, HashMap<EnvironmentName, Known>> {
        self.0.lock()
    }

    fn with<T>(&self, environment: &Environment, act: impl FnOnce(&mut Known) -> T) -> T {
        let mut all = self.lock();
        let known = all.entry(environment.name.clone()).or_default();
        if known.created_at != environment.created_at {
            *known = Known { created_at: environment.created_at, ..Known::default() };
        }
        act(known)
    }
}

impl Deployed {
    fn with_definitions<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        self.airflow.definitions.with(&self.environment, act)
    }

    /// Records the ids of the DAGs in validated and uploaded files; an empty list for removed files.
    pub(crate) fn note_definitions(&self, files: impl IntoIterator<Item = (String, Vec<String>)>) {
        let now = Instant::now();
        let noted = files.into_iter().map(|(file, ids)| (file, (now, ids.into_iter().collect())));
        self.with_definitions(|known| known.uploaded.extend(noted));
    }

    /// Whether newly published definitions may affect the warnings for these uploaded files.
    pub(crate) fn needs_definitions(&self, files: &[&str]) -> bool {
        self.with_definitions(|known| known.needs_load(files))
    }

    /// Loads the definitions that the scheduler has published.
    pub(crate) async fn load_definitions(&self) -> Result<()> {
        let definitions = super::dags::definitions(&self.metadata().await?).await;
        self.with_definitions(|known| known.load(definitions));
        Ok(())
    }

    /// Whether a DAG with this id was uploaded so recently that the scheduler may not have parsed it.
    pub(super) fn is_expected(&self, dag_id: &str) -> bool {
        self.with_definitions(|known| {
            known.uploaded.values().any(|(at, ids)| at.elapsed() < PARSED_AFTER && ids.contains(dag_id))
        })
    }

    /// Returns the DAG ids that several files define, by id, as far as they are recorded or loaded.
    pub(crate) fn shared_ids(&self) -> Vec<SharedId> {
        self.with_definitions(|known| known.shared())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_dag_ids_are_found_before_and_after_parsing() {
        let shared = |known: &Known| {
            let all = known.shared();
            let told = warnings(all.iter().map(|it| (it, "b.py", "a.py")));
            told.into_iter().map(|warning| warning.message).collect::<Vec<_>>()
        };
        let note = |known: &mut Known, file: &str, ids: &[&str]| {
            let ids = ids.iter().map(|id| (*id).to_owned()).collect();
            known.uploaded.insert(file.to_owned(), (Instant::now(), ids))
        };
        let definition = |path: &str, defined_in: &str| Definition {
            path: path.to_owned(),
            dag_id: "etl".to_owned(),
            defined_in: defined_in.to_owned(),
        };
        let mut known = Known::default();
        assert!(known.needs_load(&[]));
        note(&mut known, "a.py", &["etl", "other"]);
        assert!(shared(&known).is_empty());
        note(&mut known, "b.py", &["etl"]);
        let both = "b.py and a.py both define DAG etl";
        assert_eq!(shared(&known), [format!("{both}: the one that the scheduler parses first counts")]);
        known.load(vec![definition("a.py", "a.py"), definition("b.py", "a.py")]);
        assert_eq!(shared(&known), [format!("{both}: the one in a.py counts, until that file defines it no more")]);
        assert!(!known.needs_load(&["c.py"]) && known.needs_load(&["c.py", "b.py"]));
        // A later upload overrides what the scheduler has published.
        note(&mut known, "a.py", &[]);
        assert!(shared(&known).is_empty());
        // Two files get one warning, whatever they share.
        note(&mut known, "a.py", &["etl", "b", "c"]);
        note(&mut known, "b.py", &["b", "c"]);
        let several = "b.py and a.py both define the DAGs b, c: those that the scheduler parses first count";
        assert_eq!(shared(&known), [several]);
        note(&mut known, "b.py", &["b", "c", "d", "e", "etl"]);
        note(&mut known, "a.py", &["b", "c", "d", "e", "etl"]);
        let many = "b.py and a.py both define 4 DAGs (b, c, d, …): those that the scheduler parses first count";
        assert_eq!(
            shared(&known),
            [many.to_owned(), format!("{both}: the one in a.py counts, until that file defines it no more")]
        );
        note(&mut known, "a.py", &[]);
        // For an archive, the path inside it is the one in use.
        known.load(vec![definition("b.py", "c.zip/x.py"), definition("c.zip", "c.zip/x.py")]);
        assert_eq!(known.shared()[0].owner.as_deref(), Some("c.zip"));
    }
}
