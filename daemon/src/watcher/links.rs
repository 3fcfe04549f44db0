//! Resolves symbolic links and reports the entries on the way.

use std::{
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::scan::Visitor;

/// Limit on links when a path is resolved, as on Linux.
const MOST_LINKS: usize = 40;

/// Resolves a path from the folder `from`, whose path has no links, to one without links. Reports each entry on the way
/// to the visitor before reading it: if one of them changes, the path may lead elsewhere.
///
/// # Errors
/// Those of the system: an entry does not exist or is not a folder, or the links form a loop.
pub fn resolve(from: &Path, path: &Path, visitor: &mut dyn Visitor) -> io::Result<PathBuf> {
    let mut place = from.to_owned();
    // A stack: the next part is the last element.
    let mut ahead = parts(path);
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        match part {
            Part::Root => place = PathBuf::from("/"),
            Part::Parent => drop(place.pop()),
            Part::Name(name) => {
                visitor.step(&place, &name);
                place.push(name);
                if fs::symlink_metadata(&place)?.is_symlink() {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(rustix::io::Errno::LOOP.into());
                    }
                    ahead.extend(parts(&fs::read_link(&place)?));
                    place.pop();
                }
            }
        }
    }
    Ok(place)
}

enum Part {
    Root,
    Parent,
    Name(OsString),
}

/// Returns the parts of a path, the last one first.
fn parts(path: &Path) -> Vec<Part> {
    let part = |component| match component {
        Component::Prefix(_) | Component::CurDir => None,
        Component::RootDir => Some(Part::Root),
        Component::ParentDir => Some(Part::Parent),
        Component::Normal(name) => Some(Part::Name(name.to_owned())),
    };
    path.components().rev().filter_map(part).collect()
}
