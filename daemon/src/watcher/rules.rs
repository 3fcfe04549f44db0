//! Which files belong on the Volume: those that a DAG may need, without the leftovers of tools.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Size limit of a file. The folder is parsed repeatedly: a file near this size is data in the wrong place.
pub const MAX_FILE_BYTES: u64 = crate::airflow::MAX_FILE_BYTES as u64;

/// Limits for a path and for each of its parts, as file systems have them.
const MAX_PATH_BYTES: usize = 1_000;
const MAX_NAME_BYTES: usize = 255;

pub const IGNORE_FILE: &str = ".airflowignore";

/// Suffixes that tools use for unfinished or backup files.
const UNFINISHED: [&str; 15] = [
    "~",
    ".tmp",
    ".temp",
    ".part",
    ".partial",
    ".crswap",
    ".crdownload",
    ".swp",
    ".swo",
    ".swx",
    ".vsctmp",
    ".bak",
    ".orig",
    ".pyc",
    ".pyo",
];

/// Whether a file or folder with this name is useful to anything but the tool that made it.
pub fn is_of_use(name: &str) -> bool {
    if name.starts_with('.') {
        return name == IGNORE_FILE;
    }
    let is_emacs = name.starts_with('#') && name.ends_with('#');
    let is_jetbrains = ["___jb_tmp___", "___jb_old___", "___jb_bak___"].iter().any(|mark| name.contains(mark));
    // Libraries that write atomically use the name, `.tmp-` and a number.
    let is_atomic = name.contains(".tmp-");
    let is_unfinished = UNFINISHED.iter().any(|end| name.ends_with(end));
    !(name == "__pycache__" || is_emacs || is_jetbrains || is_atomic || is_unfinished)
}

/// Whether this is the name of a temporary file of a program. A folder may have such a name.
pub fn is_passing_file(name: &str) -> bool {
    // vim creates this file to test whether the folder is writable.
    let is_vim = name == "4913";
    let is_sed = name.len() == 9 && name.starts_with("sed") && name[3..].bytes().all(|c| c.is_ascii_alphanumeric());
    is_vim || is_sed
}

/// Whether a folder is a virtual environment.
pub fn is_virtual_environment(folder: &Path) -> bool {
    folder.join("pyvenv.cfg").is_file()
}

/// Returns why a file with this path cannot be on the Volume, if so.
pub fn refusal(path: &str, bytes: u64) -> Option<String> {
    if path.len() > MAX_PATH_BYTES || path.split('/').any(|name| name.len() > MAX_NAME_BYTES) {
        Some("its path is too long for the Volume".to_owned())
    } else if path.chars().any(|c| c.is_control() || c == '\\') {
        Some("its name has a character that the Volume cannot take: rename it".to_owned())
    } else if bytes > MAX_FILE_BYTES {
        Some(format!(
            "it is larger than {} MiB: keep data out of the folder and load it in a task",
            MAX_FILE_BYTES >> 20
        ))
    } else {
        None
    }
}

/// The exclusions of a watch.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub patterns: Patterns,
    /// Folders that the daemon itself writes to, without links in the paths: watching them would cause an endless loop.
    pub own: Arc<[PathBuf]>,
}

impl Rules {
    /// Whether the daemon writes to this folder, to one below it, or to one above it.
    pub fn has_own_files(&self, real: &Path) -> bool {
        self.own.iter().any(|own| own.starts_with(real) || real.starts_with(own))
    }
}

/// The user's patterns for a watch.
#[derive(Clone, Debug, Default)]
pub struct Patterns(Option<Gitignore>);

impl Patterns {
    /// Parses patterns in the syntax of `.gitignore`; fails at the first invalid one.
    pub fn new(patterns: &[String]) -> Result<Self, ignore::Error> {
        if patterns.is_empty() {
            return Ok(Self(None));
        }
        let mut builder = GitignoreBuilder::new("");
        for pattern in patterns {
            builder.add_line(None, pattern)?;
        }
        Ok(Self(Some(builder.build()?)))
    }

    pub fn allow(&self, path: &str) -> bool {
        let Some(patterns) = &self.0 else { return true };
        // This file controls what is parsed, whatever is uploaded.
        let says_what_is_parsed = path.rsplit('/').next() == Some(IGNORE_FILE);
        says_what_is_parsed || patterns.matched_path_or_any_parents(path, false).is_ignore()
    }
}

/// The `.airflowignore` files from the folder down to where a walk is.
#[derive(Debug, Default)]
pub struct Ignores(Vec<Gitignore>);

impl Ignores {
    /// Enters a folder with this `.airflowignore`. Invalid lines are ignored, as in Airflow.
    pub fn push(&mut self, folder: &Path, text: &str) {
        let mut builder = GitignoreBuilder::new(folder);
        for line in text.lines() {
            // In Airflow a comment can begin anywhere in a line.
            let pattern = line.split_once('#').map_or(line, |(pattern, _)| pattern.trim_end());
            // Airflow reports invalid patterns in its own log.
            let _ = builder.add_line(None, pattern);
        }
        if let Ok(ignore) = builder.build() {
            self.0.push(ignore);
        }
    }

    /// Returns the current depth; pass it to [`Ignores::truncate`] to leave the folders entered since.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Whether the last line that matches this path ignores it.
    pub fn ignore(&self, path: &Path, is_folder: bool) -> bool {
        let said = self.0.iter().rev().map(|ignore| ignore.matched(path, is_folder)).find(|said| !said.is_none());
        said.is_some_and(|said| said.is_ignore())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_of_tools_are_ignored() {
        for name in
            ["etl.py", "load.sql", "a b.json", ".airflowignore", "sedation.py", "sedimentary", "x#1.csv", "é.txt"]
        {
            assert!(is_of_use(name), "{name}");
        }
        let leftovers = [
            ".git",
            ".venv",
            ".idea",
            ".etl.py.swp",
            "etl.py~",
            "#etl.py#",
            ".#etl.py",
            "etl.py___jb_tmp___",
            "etl.py___jb_old___",
            "etl.py.tmp",
            "etl.py.tmp-17000000001f2e3d",
            "etl.py.vsctmp",
            "x.part",
            "etl.py.crswap",
            "etl.cpython-311.pyc",
            "__pycache__",
            "etl.py.orig",
        ];
        for name in leftovers {
            assert!(!is_of_use(name), "{name}");
        }
        // A folder may have such a name.
        for name in ["4913", "sedAb12Cd", "sediments"] {
            assert!(is_of_use(name) && is_passing_file(name), "{name}");
        }
        assert!(!is_passing_file("sedation.py") && !is_passing_file("sedimentary"));
    }

    #[test]
    fn invalid_names_and_large_files_are_refused() {
        assert_eq!(refusal("a/b c.py", MAX_FILE_BYTES), None);
        assert!(refusal("a.py", MAX_FILE_BYTES + 1).is_some_and(|why| why.contains("4 MiB")));
        assert!(refusal("a\nb.py", 1).is_some() && refusal("a\\b.py", 1).is_some());
        assert!(refusal(&"x".repeat(256), 1).is_some() && refusal(&"x/".repeat(600), 1).is_some());
    }

    #[test]
    fn patterns_select_files() {
        let all = Patterns::new(&[]).expect("patterns");
        assert!(all.allow("a/b.txt"));
        let some = Patterns::new(&["*.py".into(), "sql/".into(), "!old_*.py".into()]).expect("patterns");
        assert!(some.allow("a/b.py") && some.allow("team/sql/load.txt") && some.allow("team/.airflowignore"));
        assert!(!some.allow("a/b.csv") && !some.allow("old_b.py"));
        assert!(Patterns::new(&["{a".into()]).is_err());
    }

    #[test]
    fn airflowignore_is_parsed_like_in_airflow() {
        let mut ignores = Ignores::default();
        ignores.push(Path::new("/d"), "lib/ # helpers\nold_*\n/top.py\n# nothing\n");
        let ignored = |ignores: &Ignores, path: &str, folder| ignores.ignore(Path::new(path), folder);
        assert!(ignored(&ignores, "/d/lib", true) && ignored(&ignores, "/d/a/old_x.py", false));
        assert!(ignored(&ignores, "/d/top.py", false) && !ignored(&ignores, "/d/a/top.py", false));
        assert!(!ignored(&ignores, "/d/lib", false) && !ignored(&ignores, "/d/nothing", false));
        let above = ignores.len();
        ignores.push(Path::new("/d/a"), "!old_x.py\n[\n");
        assert!(!ignored(&ignores, "/d/a/old_x.py", false) && ignored(&ignores, "/d/a/old_y.py", false));
        ignores.truncate(above);
        assert!(ignored(&ignores, "/d/a/old_x.py", false));
    }
}
