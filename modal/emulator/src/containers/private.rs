//! The private folders of a container: its home, the home of this server's user, and the working folder of its image.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::code::HOME;
use crate::options::{Listen, Options};

/// The folder in a container's folder that has the files that it wrote.
pub const WRITTEN: &str = "private";
/// Folders of the system that are never private.
const SHARED: [&str; 5] = ["/tmp", "/proc", "/sys", "/dev", "/run"];

impl Options {
    /// The server's own paths that every container must see: the data folder, and the socket to connect to.
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

/// The private folders of a container by their paths, with the folders that the image adds to each, the last step
/// first.
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
        // The data folder is the server's own, and a working folder must not cover it.
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

/// Makes the work folders of overlays writable, which the kernel makes inaccessible, so that they can be removed.
pub fn unlock_work_folders(folder: &Path) {
    for entry in fs::read_dir(folder.join("work")).into_iter().flatten().flatten() {
        // If it does not exist, nothing is to be done; if this fails, the removal reports it.
        let _ = fs::set_permissions(entry.path().join("work"), fs::Permissions::from_mode(0o700));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_folder_is_private_unless_shared_or_of_the_server() {
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
