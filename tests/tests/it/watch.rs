//! Watches: whatever way a file is saved, it comes to the Volume, once and as a whole; what is broken does not.

mod life;
mod links;
mod saves;
mod special;

use std::{
    fs,
    path::{Path, PathBuf},
};

use integration_tests::{Installation, eventually, text};
use serde_json::Value;

/// A folder that is watched for environment `dev`.
struct Watched<'a> {
    it: &'a Installation,
    folder: PathBuf,
}

impl<'a> Watched<'a> {
    fn add(it: &'a Installation, name: &str, more: &[&str]) -> Self {
        let folder = it.root().join(name);
        if !folder.exists() {
            fs::create_dir_all(&folder).expect("a folder");
        }
        let watched = Self { it, folder };
        let mut arguments = vec![watched.folder.to_str().expect("text")];
        arguments.extend(more);
        it.dev("watch add", &arguments).succeeded();
        watched
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, content: &str) {
        write(&self.path(name), content);
    }

    fn show(&self) -> Value {
        let list = self.it.cli(&["watch", "list", "--json"]).succeeded().json();
        let folder = self.folder.to_str().expect("text");
        let found = list["watches"].as_array().expect("watches").iter().find(|watch| watch["directory"] == folder);
        found.unwrap_or_else(|| panic!("{folder} is not watched: {list}")).clone()
    }

    /// Waits until the folder and the Volume are in this state to each other.
    #[track_caller]
    fn becomes(&self, state: &str) -> Value {
        let mut last = Value::Null;
        let there = || {
            last = self.show();
            (last["state"] == state).then(|| last.clone())
        };
        eventually(&format!("the state {state}"), there)
    }

    /// Waits until the Volume has exactly this content under this name; `None` for no file.
    #[track_caller]
    fn has_uploaded(&self, name: &str, content: Option<&str>) {
        let place = self.on_volume(name);
        eventually(&format!("{name} on the Volume"), || {
            (fs::read_to_string(&place).ok().as_deref() == content).then_some(())
        });
    }

    fn on_volume(&self, name: &str) -> PathBuf {
        self.it.volume().join("dags").join(name)
    }

    fn uploads(&self) -> i64 {
        self.show()["uploads"].as_i64().expect("a number")
    }
}

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    fs::write(path, content).expect("a written file");
}

fn names(files: &Value) -> Vec<&str> {
    files.as_array().expect("files").iter().map(|file| text(&file["file"])).collect()
}

/// A DAG file that can be told from others by a word.
fn dag(name: &str, word: &str) -> String {
    format!("from airflow.sdk import DAG\ndag = DAG({name:?}, description={word:?}, schedule=None)\n")
}
