//! Paths in a Volume, as clients write them.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use crate::error::Error;

/// A path from the SDK, relative to the Volume's root. It cannot lead out of the Volume.
pub fn normal(path: &str) -> Result<PathBuf, Error> {
    let mut normal = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(leads_out(path)),
        }
    }
    if path.contains('\0') {
        return Err(Error::invalid("path", "it contains a NUL"));
    }
    Ok(normal)
}

/// The file system's path of a path. A folder in it may be a link that a container made, but not one that leads out of
/// the Volume.
pub fn locate(root: &Path, path: &str) -> Result<PathBuf, Error> {
    let target = root.join(normal(path)?);
    let relative = target.strip_prefix(root).unwrap_or(Path::new(""));
    let above = relative.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    for folder in above.map(|folder| root.join(folder)) {
        let Ok(meta) = folder.symlink_metadata() else { continue };
        let inside = !meta.is_symlink() || folder.canonicalize().is_ok_and(|real| is_inside(root, &real));
        if !inside {
            return Err(leads_out(path));
        }
        if !folder.is_dir() {
            let shown = folder.strip_prefix(root).unwrap_or(&folder).to_owned();
            return Err(Error::invalid("path", format!("{path:?} leads through {shown:?}, which is not a folder")));
        }
    }
    Ok(target)
}

/// The error for a file that could not be used.
pub fn missing(action: &'static str, path: &str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NotFound { kind: "file", id: path },
        _ => Error::io(action, path)(error),
    }
}

fn is_inside(root: &Path, real: &Path) -> bool {
    root.canonicalize().is_ok_and(|root| real.starts_with(root))
}

fn leads_out(path: &str) -> Error {
    Error::invalid("path", format!("{path:?} leads out of the Volume"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_outside_the_volume_are_refused() {
        assert_eq!(normal("/dags//a/./b.py").unwrap(), Path::new("dags/a/b.py"));
        assert_eq!(normal("/").unwrap(), Path::new(""));
        assert!(normal("dags/../../etc/passwd").is_err());
        assert!(normal("a\0b").is_err());
    }

    #[test]
    fn links_out_of_the_volume_are_not_followed() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(root.path().join("folder")).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink(other.path(), root.path().join("out")).unwrap();
        std::os::unix::fs::symlink("folder", root.path().join("in")).unwrap();
        let found = |path: &str| locate(root.path(), path).is_ok();
        assert!(found("folder/x") && found("in/x") && found("new/folder/x") && found("out") && found("/"));
        assert!(!found("out/x") && !found("out/y/x") && !found("file/x"));
    }
}
