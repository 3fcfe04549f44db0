//! The Volumes that containers see.
//!
//! With [`VolumeMode::Bind`], a container works in the Volume's own folder, so that a missing `commit` or `reload` goes
//! unnoticed. With [`VolumeMode::Strict`], it has its own copy, as on Modal: `commit` publishes its changes, and
//! `reload` fetches those of others.

mod view;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use modal_proto::VolumeMount;
use parking_lot::Mutex;
use serde::Serialize;

use self::view::View;
use crate::{
    error::Error,
    files::blocking,
    options::{Options, VolumeMode},
    volumes::Volumes,
};

/// How often the changes of a container are committed in the background.
const BACKGROUND_COMMITS: Duration = Duration::from_secs(5);

/// A folder that a container sees at another path.
#[derive(Debug, Clone, Serialize)]
pub struct Attachment {
    #[serde(skip)]
    pub path: String,
    pub folder: PathBuf,
    pub read_only: bool,
}

/// A Volume in a container.
type Key = (String, String);

/// The private copies of all containers.
pub struct Views {
    mode: VolumeMode,
    containers: PathBuf,
    volumes: Volumes,
    views: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<View>>>>,
}

impl Views {
    pub fn new(options: &Options, volumes: Volumes) -> Self {
        Self { mode: options.volumes, containers: options.containers_folder(), volumes, views: Mutex::default() }
    }

    /// What containers see: the Volumes' own folders, or copies of them.
    pub async fn attach(&self, task_id: &str, mounts: &[VolumeMount]) -> Result<Vec<Attachment>, Error> {
        let mut attached = Vec::with_capacity(mounts.len());
        for mount in mounts {
            self.volumes.create(&mount.volume_id).await?;
            let whole = match self.mode {
                VolumeMode::Bind => self.volumes.folder(&mount.volume_id),
                VolumeMode::Strict => self.copy(task_id, &mount.volume_id).await?,
            };
            let inside = mount.sub_path.as_deref().map(crate::volumes::normal).transpose()?;
            let folder = inside.map_or(whole.clone(), |inside| whole.join(inside));
            let made = folder.clone();
            blocking(move || std::fs::create_dir_all(&made).map_err(Error::io("create", "the Volume's folder")))
                .await?;
            attached.push(Attachment { path: mount.mount_path.clone(), folder, read_only: mount.read_only });
        }
        Ok(attached)
    }

    /// Commits the changes of a container. Returns whether there is something to reload and no open file prevents that.
    pub async fn commit(&self, task_id: &str, volume_id: &str) -> Result<bool, Error> {
        let Some(view) = self.find(task_id, volume_id) else { return Ok(false) };
        let _alone = self.volumes.lock(volume_id).await;
        let mut view = view.lock_owned().await;
        blocking(move || Ok(view.commit_and_find_open()?.is_none())).await
    }

    /// Commits the changes of a container.
    async fn commit_only(&self, task_id: &str, volume_id: &str) -> Result<(), Error> {
        let Some(view) = self.find(task_id, volume_id) else { return Ok(()) };
        let _alone = self.volumes.lock(volume_id).await;
        let mut view = view.lock_owned().await;
        blocking(move || view.commit()).await
    }

    /// Shows a container what is committed. Fails while one of its processes has a file of the Volume open.
    pub async fn reload(&self, task_id: &str, volume_id: &str) -> Result<(), Error> {
        let Some(view) = self.find(task_id, volume_id) else { return Ok(()) };
        let _alone = self.volumes.lock(volume_id).await;
        let mut view = view.lock_owned().await;
        let volume_id = volume_id.to_owned();
        blocking(move || {
            if let Some(open) = view.commit_and_find_open()? {
                return Err(Error::OpenFiles { id: volume_id, open });
            }
            view.refresh()
        })
        .await
    }

    /// Commits the changes of a container every few seconds, forever.
    pub async fn commit_in_background(&self, task_id: &str) {
        if self.mode == VolumeMode::Bind {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(BACKGROUND_COMMITS).await;
            for volume_id in self.volumes_of(task_id) {
                if let Err(error) = self.commit_only(task_id, &volume_id).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, volume.id = volume_id, "not committed");
                }
            }
        }
    }

    /// Forgets an ended container, so that the removal of its folder is not taken for a change.
    pub async fn detach(&self, task_id: &str) {
        for volume_id in self.volumes_of(task_id) {
            let key = (task_id.to_owned(), volume_id);
            let removed = self.views.lock().remove(&key);
            if let Some(view) = removed {
                view.lock().await.closed = true;
            }
        }
    }

    async fn copy(&self, task_id: &str, volume_id: &str) -> Result<PathBuf, Error> {
        if let Some(view) = self.find(task_id, volume_id) {
            return Ok(view.lock().await.folder.clone());
        }
        let folder = self.containers.join(task_id).join("volumes").join(volume_id);
        let committed = self.volumes.folder(volume_id);
        let _alone = self.volumes.lock(volume_id).await;
        let view = blocking(move || View::create(folder, committed)).await?;
        let folder = view.folder.clone();
        let key = (task_id.to_owned(), volume_id.to_owned());
        self.views.lock().insert(key, Arc::new(tokio::sync::Mutex::new(view)));
        Ok(folder)
    }

    fn find(&self, task_id: &str, volume_id: &str) -> Option<Arc<tokio::sync::Mutex<View>>> {
        let key = (task_id.to_owned(), volume_id.to_owned());
        self.views.lock().get(&key).cloned()
    }

    fn volumes_of(&self, task_id: &str) -> Vec<String> {
        let views = self.views.lock();
        views.keys().filter(|(task, _)| task == task_id).map(|(_, volume)| volume.clone()).collect()
    }
}
