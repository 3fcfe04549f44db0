//! The Volume side of a watch: listing, uploading and removing files.

use std::{collections::HashMap, path::Path};

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use modal_client::{EntryKind, File, Volume};

use super::{
    imports::Graph,
    local::{Locals, Role},
    plan::{Remote, Remotes},
    scanned_folder::{digest, read},
};
use crate::{
    airflow::{DAGS, Deployed, on_volume},
    error::Result,
    model::{Name, Record},
};

/// Limits of one upload, which is held in memory and appears atomically.
const MOST_BYTES: u64 = 16 << 20;
const MOST_FILES: usize = 5_000;
const REMOVALS_AT_A_TIME: usize = 16;

/// Lists the files below `dags/`.
pub async fn remotes(volume: &Volume) -> Result<Remotes> {
    let entries = volume.list(&format!("/{DAGS}"), true).await?;
    let below = format!("{DAGS}/");
    let remote = |entry: modal_client::Entry| {
        let path = entry.path.trim_start_matches('/').strip_prefix(&below)?.into();
        let is_file = entry.kind != EntryKind::Directory;
        Some((path, Remote { is_file, size: entry.size, modified: entry.modified.cast_signed() }))
    };
    Ok(entries.into_iter().filter_map(remote).collect())
}

/// Removes files, several at once: each is a round trip.
pub async fn remove(volume: &Volume, names: &[Name]) -> Result<()> {
    let paths: Vec<String> = names.iter().map(|name| on_volume(name)).collect();
    let removals = stream::iter(paths).map(|path| {
        let volume = volume.clone();
        async move { volume.remove(&path).await.map(|_| ()) }
    });
    Ok(removals.buffer_unordered(REMOVALS_AT_A_TIME).try_collect().await?)
}

/// Removes files of this watch that are in the way of uploads.
pub async fn clear_way(volume: &Volume, in_the_way: &[Name], uploads: &[Name]) -> Result<()> {
    remove(volume, in_the_way).await?;
    // The plan ensures that no other files are left in these folders.
    for path in uploads.iter().filter(|path| in_the_way.iter().any(|old| old.starts_with(&format!("{path}/")))) {
        volume.remove_folder(&on_volume(path)).await?;
    }
    Ok(())
}

/// Splits the uploads: a single batch unless there are too many files. Imported files go first.
pub fn batches(mut files: Vec<Name>, locals: &Locals, graph: &Graph) -> Vec<Vec<Name>> {
    let rank = |path: &Name| match locals.get(path).map(|local| local.role) {
        Some(Role::Dags) if graph.is_imported(path) => 1,
        Some(Role::Dags) => 2,
        _ => 0,
    };
    files.sort_by_cached_key(rank);
    let (mut batches, mut bytes) = (Vec::<Vec<Name>>::new(), 0);
    for file in files {
        let size = locals.get(&file).map_or(0, |local| local.stamp.size);
        bytes += size;
        match batches.last_mut() {
            Some(batch) if bytes <= MOST_BYTES && batch.len() < MOST_FILES => batch.push(file),
            _ => {
                bytes = size;
                batches.push(vec![file]);
            }
        }
    }
    batches
}

/// Reads the contents of the files; `None` if one of them has changed since it was validated.
pub async fn contents(
    root: &Path,
    names: Vec<Name>,
    locals: &Locals,
    kept: &mut HashMap<Name, Vec<u8>>,
) -> Result<Option<Vec<(Name, Vec<u8>)>>> {
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        let content = match kept.remove(&name) {
            Some(content) => Some(content),
            None => {
                let path = root.join(&*name);
                let read = tokio::task::spawn_blocking(move || read(&path)).await;
                read.ok().and_then(|read| read.ok()).map(|(_, content)| content)
            }
        };
        let expected = locals.get(&name).map(|local| local.sha256);
        match content {
            Some(content) if Some(digest(&content)) == expected => files.push((name, content)),
            _ => return Ok(None),
        }
    }
    Ok(Some(files))
}

/// Uploads the files, all or nothing; returns the records to save.
pub async fn put(
    environment: &Deployed,
    files: Vec<(Name, Vec<u8>)>,
    locals: &Locals,
    clock: fn() -> DateTime<Utc>,
) -> Result<Vec<(Name, Record)>> {
    let names: Vec<Name> = files.iter().map(|(name, _)| name.clone()).collect();
    let files =
        files.into_iter().map(|(name, content)| File { path: on_volume(&name), content: content.into() }).collect();
    environment.upload(files).await?;
    let uploaded_at = clock().timestamp();
    let record = |name: Name| {
        let local = locals.get(&name)?;
        let record = Record {
            sha256: Some(local.sha256),
            stamp: local.stamp,
            imports: local.imports.clone(),
            uploaded_at,
            on_volume: None,
        };
        Some((name, record))
    };
    Ok(names.into_iter().filter_map(record).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watcher::imports::tests::folder;

    #[test]
    fn imported_files_go_first_in_batches_of_limited_size() {
        let mut locals = folder(&[("a.py", "import z"), ("b.py", ""), ("z.py", ""), ("data.json", "")]);
        locals.get_mut("data.json").expect("a file").role = Role::Data;
        let names: Vec<Name> = locals.keys().cloned().collect();
        let graph = Graph::new(&locals, &[]);
        let order = |locals: &Locals| {
            let batches = batches(names.clone(), locals, &graph);
            batches.iter().map(|batch| batch.join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(order(&locals), ["data.json z.py a.py b.py"]);
        for local in locals.values_mut() {
            local.stamp.size = MOST_BYTES / 2;
        }
        assert_eq!(order(&locals), ["data.json z.py", "a.py b.py"]);
        for local in locals.values_mut() {
            local.stamp.size = MOST_BYTES + 1;
        }
        assert_eq!(order(&locals), ["data.json", "z.py", "a.py", "b.py"]);
    }
}
