//! The files of a container: those of its image and its mounts, merged into one tree that functions of an app share.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use crate::{
    error::Error,
    files::blocking,
    ids::new_id,
    images::{self, Environment, Files},
    shared::Shared,
    state::Definition,
};

/// The folder in a tree that is the home of a container's user, where Modal puts code.
pub const HOME: &str = "root";

/// Returns the tree of a definition's files, and creates it if it does not exist. Mounted files cover those of the
/// image.
pub async fn materialize(shared: &Shared, definition: &Definition, image: &Environment) -> Result<PathBuf, Error> {
    let trees = shared.options.data_dir.join("trees");
    let tree = trees.join(shared.read(|state| state.tree_name(definition)));
    if tree.is_dir() {
        return Ok(tree);
    }
    let files: BTreeMap<String, (String, Option<u32>)> = shared.read(|state| {
        let mounts = definition.function.mount_ids.iter().filter_map(|id| state.mounts.get(id));
        mounts.flat_map(|mount| mount.files.clone()).collect()
    });
    let store = shared.files.clone();
    let (of_image, root, folder) = (image.files.clone(), image.root.clone(), image.folder.clone());
    blocking(move || {
        let building = trees.join(format!(".{}", new_id("tree")));
        let build = || {
            fs::create_dir_all(building.join(HOME))?;
            if let Some(root) = root {
                copy_tree(&root, &building)?;
            }
            images::place_files(&of_image, &Files::default(), &store, &building)?;
            if let Some(folder) = folder {
                fs::create_dir_all(building.join(inside(&folder)))?;
            }
            for (path, (sha256_hex, mode)) in &files {
                let source = store.path(sha256_hex).map_err(io::Error::other)?;
                let target = building.join(inside(path));
                fs::create_dir_all(target.parent().unwrap_or(&building))?;
                // A copy: containers may write to their files, and the store's must not change.
                fs::copy(source, &target)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(mode.unwrap_or(0o644) & 0o777 | 0o600))?;
            }
            match fs::rename(&building, &tree) {
                // Another container with the same files came first.
                Err(_) if tree.is_dir() => fs::remove_dir_all(&building),
                outcome => outcome,
            }
        };
        build().map_err(Error::io("prepare", "the function's files"))?;
        Ok(tree)
    })
    .await
}

/// Copies the contents of a folder into another one.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// An absolute path of a container as a path inside a tree.
fn inside(path: &str) -> PathBuf {
    let normal = |component: Component<'_>| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        _ => None,
    };
    Path::new(path).components().filter_map(normal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounted_paths_stay_in_the_tree() {
        assert_eq!(inside("/root/app.py"), Path::new("root/app.py"));
        assert_eq!(inside("/app/../../etc/passwd"), Path::new("app/etc/passwd"));
    }
}
