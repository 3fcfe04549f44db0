//! The folders of which each container has its own: its home, the home of this server's user, and the working folder of
//! its image. What a function that is a step of an image writes there becomes a layer of the image.

use std::{
    collections::BTreeMap,
    env, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::code::HOME;
use crate::{
    ids::new_id,
    options::{Listen, Options},
    state::Definition,
};

/// The folder in a container's folder that has what it wrote.
const WRITTEN: &str = "private";
/// Folders of the system that a working folder leaves as they are.
const SHARED: [&str; 5] = ["/tmp", "/proc", "/sys", "/dev", "/run"];

impl Options {
    /// The folder with what functions that are steps of images wrote, one folder each.
    pub(crate) fn homes_folder(&self) -> PathBuf {
        self.data_dir.join("homes")
    }

    /// The server's own places that containers need wherever they are: the data folder, and the socket to connect to.
    pub(crate) fn shown(&self) -> Vec<PathBuf> {
        let mut shown = vec![self.data_dir.clone()];
        if let Listen::Unix(path) = &self.listen
            && let Ok(path) = fs::canonicalize(path)
            && !path.starts_with(&self.data_dir)
        {
            shown.push(path);
        }
        shown
    }
}

/// The private folders of a container by their paths, with what the image adds to each, the last step first.
pub fn folders(
    options: &Options,
    working_folder: Option<&str>,
    homes: &[PathBuf],
    is_volume: impl Fn(&str) -> bool,
) -> BTreeMap<String, Vec<PathBuf>> {
    let home = env::var_os("HOME").and_then(|home| fs::canonicalize(home).ok());
    let users = home.as_ref().and_then(|home| home.to_str());
    let mut paths: Vec<String> = vec![format!("/{HOME}")];
    for path in [users, working_folder].into_iter().flatten().map(|path| path.trim_end_matches('/')) {
        let overlaps = |other: &str| Path::new(path).starts_with(other) || Path::new(other).starts_with(path);
        let is_users = Some(path) == users;
        // What is in the data folder is the server's own, and a working folder does not cover it.
        let is_servers =
            Path::new(path).starts_with(&options.data_dir) || (!is_users && options.data_dir.starts_with(path));
        let is_systems = !path.starts_with('/') || SHARED.contains(&path);
        if !is_servers && !is_systems && !paths.iter().any(|other| overlaps(other)) {
            paths.push(path.to_owned());
        }
    }
    paths.retain(|path| !is_volume(path));
    let added = |path: &str| homes.iter().map(|home| home.join(path.trim_start_matches('/'))).collect();
    paths.into_iter().map(|path| (path.clone(), added(&path))).collect()
}

/// Keeps what the container of a function that is a step of an image wrote, until the build takes it.
pub fn keep(options: &Options, definition: &Definition, folder: &Path) -> io::Result<()> {
    if !definition.function.is_builder_function {
        return Ok(());
    }
    discard(options, &definition.function_id)?;
    fs::create_dir_all(options.homes_folder())?;
    match fs::rename(folder.join(WRITTEN), options.homes_folder().join(&definition.function_id)) {
        // It had no private folders.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Makes a layer of what the containers of a function wrote; returns its name, if they wrote anywhere.
pub fn take(options: &Options, function_id: &str) -> io::Result<Option<String>> {
    let name = new_id("home");
    match fs::rename(options.homes_folder().join(function_id), options.homes_folder().join(&name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(|()| Some(name)),
    }
}

/// Removes what the containers of a function wrote.
pub fn discard(options: &Options, function_id: &str) -> io::Result<()> {
    match fs::remove_dir_all(options.homes_folder().join(function_id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens the folders of a container that overlays have closed to their owner, so that they can be removed.
pub fn open_closed(folder: &Path) {
    for entry in fs::read_dir(folder.join("work")).into_iter().flatten().flatten() {
        // If it is not there, nothing is closed; if it cannot be opened, removing it says so.
        let _ = fs::set_permissions(entry.path().join("work"), fs::Permissions::from_mode(0o700));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_folders_are_private_unless_they_are_shared_or_the_servers() {
        let data = tempfile::tempdir().unwrap();
        let options = Options::new(data.path());
        let has = |folder: &str| folders(&options, Some(folder), &[], |_| false).contains_key(folder);
        assert!(has("/app") && has("/opt/app") && has("/root"));
        assert!(!has("/tmp") && !has("/root/app") && !has("/") && !has("app"));
        assert!(!has(&data.path().to_string_lossy()) && !has(&data.path().join("x").to_string_lossy()));
        let home = folders(&options, None, &[PathBuf::from("/homes/a")], |_| false);
        assert_eq!(home["/root"], [PathBuf::from("/homes/a/root")]);
        assert!(!folders(&options, Some("/app"), &[], |path| path == "/app").contains_key("/app"));
    }
}
