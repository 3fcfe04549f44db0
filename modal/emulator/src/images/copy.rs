//! The files of an image, from `COPY` instructions.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::BuildError;

/// Where a file's contents are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In the file store, under this hash.
    Stored(String),
    /// In the recipe.
    Inline(Bytes),
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub content: Content,
    pub mode: Option<u32>,
}

impl File {
    /// The text of a file that is part of the recipe.
    pub fn inline_text(&self) -> Option<&str> {
        match &self.content {
            Content::Inline(data) => std::str::from_utf8(data).ok(),
            Content::Stored(_) => None,
        }
    }
}

/// Files by their absolute paths in a container.
#[derive(Debug, Clone, Default)]
pub struct Files(pub BTreeMap<String, File>);

impl Files {
    /// The file at a path.
    pub fn get(&self, path: &str) -> Option<&File> {
        self.0.get(path)
    }

    /// Whether there is a file or a folder at a path.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path) || self.below(path).next().is_some()
    }

    /// The files in a folder, with their paths in it.
    fn below<'a>(&'a self, folder: &str) -> impl Iterator<Item = (&'a str, &'a File)> + use<'a> {
        let prefix = if folder.is_empty() || folder == "/" { "/".to_owned() } else { format!("{folder}/") };
        let after = self.0.range(prefix.clone()..);
        after.map_while(move |(path, file)| Some((path.strip_prefix(&prefix)?, file)))
    }

    /// Adds a file, or all files of a folder, to a hash.
    pub fn add_to(&self, hash: &mut Sha256, path: &str) {
        let alone = self.0.get(path).map(|file| ("", file));
        for (name, File { content, mode }) in alone.into_iter().chain(self.below(path)) {
            let content = match content {
                Content::Stored(sha256_hex) => sha256_hex.clone(),
                Content::Inline(data) => hex::encode(Sha256::digest(data)),
            };
            hash.update(format!("\0{path}\0{name}\0{content}\0{mode:?}"));
        }
    }

    /// Does what `COPY` does: files and folders of `context` go to `target`, an absolute path.
    pub fn copy(&mut self, context: &Self, sources: &[String], target: &str) -> Result<(), BuildError> {
        let into_folder = target.ends_with('/') || sources.len() > 1;
        let folder = target.trim_end_matches('/').to_owned();
        for source in sources {
            let matches = context.matching(&absolute("/", source));
            if matches.is_empty() {
                return Err(BuildError(format!(
                    "COPY {source}: there is no such file among those that were sent along"
                )));
            }
            for path in matches {
                match context.get(&path) {
                    Some(file) => {
                        let name = path.rsplit('/').next().unwrap_or_default();
                        let inside = into_folder || self.below(&folder).next().is_some();
                        let place = if inside { format!("{folder}/{name}") } else { folder.clone() };
                        self.0.insert(place, file.clone());
                    }
                    None => {
                        let files = context.below(&path).map(|(name, file)| (format!("{folder}/{name}"), file.clone()));
                        self.0.extend(files);
                    }
                }
            }
        }
        Ok(())
    }

    /// Files and folders whose paths match `pattern`, in which `*` and `?` mean the same as in a shell.
    fn matching(&self, pattern: &str) -> Vec<String> {
        if !pattern.contains(['*', '?']) {
            return if self.has(pattern) { vec![pattern.to_owned()] } else { Vec::new() };
        }
        let parts: Vec<&str> = pattern.split('/').collect();
        let mut found: Vec<String> = Vec::new();
        for path in self.0.keys() {
            let names: Vec<&str> = path.split('/').collect();
            let Some(names) = names.get(..parts.len()) else { continue };
            let path = names.join("/");
            if names.iter().zip(&parts).all(|(name, part)| is_like(name, part)) && found.last() != Some(&path) {
                found.push(path);
            }
        }
        found
    }
}

fn is_like(name: &str, pattern: &str) -> bool {
    match pattern.chars().next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = &pattern[1..];
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| is_like(&name[at..], rest))
        }
        Some(c) => {
            let mut chars = name.chars();
            chars.next().is_some_and(|first| c == '?' || c == first)
                && is_like(chars.as_str(), &pattern[c.len_utf8()..])
        }
    }
}

/// A path as an absolute one without `.` and `..`; a relative one begins at `folder`.
pub fn absolute(folder: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{folder}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str]) -> Files {
        let file = |path: &&str| ((*path).to_owned(), File { content: Content::Stored((*path).into()), mode: None });
        Files(paths.iter().map(file).collect())
    }

    fn copied(context: &[&str], sources: &[&str], target: &str) -> Vec<String> {
        let mut image = Files::default();
        let sources: Vec<String> = sources.iter().map(|source| (*source).to_owned()).collect();
        image.copy(&files(context), &sources, target).unwrap();
        image.0.into_keys().collect()
    }

    #[test]
    fn copy_places_files_like_docker() {
        assert_eq!(copied(&["/root/a/b.py", "/root/c"], &["."], "/"), ["/root/a/b.py", "/root/c"]);
        assert_eq!(copied(&["/.req.txt"], &["/.req.txt"], "/.uv/0/req.txt"), ["/.uv/0/req.txt"]);
        assert_eq!(copied(&["/src/a", "/src/d/b"], &["src"], "/app"), ["/app/a", "/app/d/b"]);
        assert_eq!(copied(&["/x.toml", "/y.toml", "/z"], &["./*.toml"], "/app/"), ["/app/x.toml", "/app/y.toml"]);
        assert_eq!(copied(&["/a", "/b"], &["a", "b"], "/app"), ["/app/a", "/app/b"]);
        let missing = Files::default().copy(&files(&["/a"]), &["b".to_owned()], "/");
        assert!(missing.unwrap_err().to_string().contains("COPY b"));
        assert_eq!(absolute("/w", "../x/./y"), "/x/y");
    }
}
