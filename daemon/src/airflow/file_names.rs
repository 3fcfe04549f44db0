//! Rules for the names and sizes of DAG files and plugins.

use airflow_serverless_api::problem::Fault;

use super::dag_files::PLUGINS;
use crate::error::{Error, Result};

/// Largest DAG file. Airflow parses it on each change: a file near this size is data in the wrong place.
pub const MAX_FILE_BYTES: usize = 4 << 20;

const MAX_NAME: usize = 200;
/// Limits for the whole path and for each of its parts, in bytes.
const MAX_PATH: usize = 1000;
const MAX_PART: usize = 255;

/// The path of a file in the DAG folder.
#[derive(Clone, Copy)]
pub struct DagFilePath<'a>(&'a str);

impl<'a> DagFilePath<'a> {
    /// Accepts any path that a watch may have uploaded; `InvalidFileName` for others.
    pub fn new(path: &'a str) -> Result<Self> {
        check_path(path).map(|()| Self(path))
    }

    /// Accepts a path that a request may upload: a file name, or that of a plugin after the plugin folder.
    pub fn for_upload(name: &'a str) -> Result<Self> {
        check_name(name).map(|()| Self(name))
    }

    pub fn as_str(self) -> &'a str {
        self.0
    }
}

fn check_path(filename: &str) -> Result<()> {
    let fault = if !filename.ends_with(".py") {
        "it must end in .py"
    } else if filename.len() > MAX_PATH {
        "it is longer than 1000 bytes"
    } else if filename.split('/').any(|part| matches!(part, "" | "." | "..") || part.len() > MAX_PART) {
        "it must be a path from the DAG folder down, such as team/etl.py"
    } else if filename.chars().any(char::is_control) {
        "control characters are not allowed"
    } else {
        return Ok(());
    };
    Err(Error::InvalidFileName(filename.to_owned(), fault))
}

fn check_name(filename: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let name = filename.strip_prefix(PLUGINS).unwrap_or(filename);
    let fault = if !name.ends_with(".py") {
        "it must end in .py"
    } else if name.starts_with('.') {
        "it must not start with a dot"
    } else if name.len() > MAX_NAME {
        "it is longer than 200 characters"
    } else if !name.chars().all(allowed) {
        "only letters, digits, '_', '-' and '.' are allowed"
    } else {
        return Ok(());
    };
    Err(Error::InvalidFileName(filename.to_owned(), fault))
}

pub(super) fn check_size(filename: &str, content: &[u8]) -> Result<()> {
    if content.len() <= MAX_FILE_BYTES {
        return Ok(());
    }
    let message =
        format!("the file is larger than {} MiB: keep data out of it and load it in a task", MAX_FILE_BYTES >> 20);
    Err(Error::InvalidDagFile { file: filename.to_owned(), faults: vec![Fault::new(filename, message)] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_file_names_and_paths_are_refused() {
        assert!(check_name("etl_2.daily-run.py").is_ok() && check_name("plugins/workday.py").is_ok());
        let long = format!("{}.py", "x".repeat(200));
        let strange = ["plugins/a.csv", "plugins/../etl.py", "plugins/a/b.py", "plugins/.py"];
        for bad in ["etl.txt", ".hidden.py", "../etl.py", "a/b.py", "ä.py", "a b.py", "", &long].iter().chain(&strange)
        {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_path("team/ä b/etl.py").is_ok() && check_path("plugins/workday.py").is_ok());
        for bad in ["", "etl.txt", "/etl.py", "../etl.py", "a/../etl.py", "a//etl.py", "./etl.py", "a/\0.py"] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }
}
