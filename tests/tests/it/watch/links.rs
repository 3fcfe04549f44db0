//! Links in watched folders, and folders that are links: what they lead to is uploaded under their names.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use integration_tests::{Installation, eventually, text};
use serde_json::json;

use super::{Watched, dag, names, write};

/// The daemon looks whether a folder is still the same each minute. What it is told of, it has long before.
const AT_ONCE: Duration = Duration::from_secs(55);

/// Makes a link as whoever replaces one that is in use: with a temporary name and a rename.
fn link(target: impl AsRef<Path>, path: &Path) {
    let temporary = path.with_file_name("..temporary");
    symlink(target, &temporary).expect("a link");
    fs::rename(temporary, path).expect("switched");
}

impl Watched<'_> {
    /// A change comes to the Volume without waiting for a periodic scan, as a regular file.
    #[track_caller]
    fn follows(&self, name: &str, content: &str, change: impl FnOnce()) {
        let began = Instant::now();
        change();
        self.has_uploaded(name, Some(content));
        assert!(began.elapsed() < AT_ONCE, "{name} came late: {:?}", began.elapsed());
        assert!(self.on_volume(name).symlink_metadata().is_ok_and(|it| it.is_file()), "{name} is not a regular file");
        // So that the next change is not found by a look for this one.
        eventually("the end of the round", || {
            let watch = self.show();
            (watch["state"] != "pending").then_some(())
        });
    }
}

/// A DAG whose description is in another module.
const ETL: &str =
    "from airflow.sdk import DAG\nfrom helper import WORD\ndag = DAG('etl', description=WORD, schedule=None)\n";

fn helper(word: &str) -> String {
    format!("WORD = {word:?}\n")
}

#[test]
fn changed_symlink_targets_are_uploaded() {
    let it = Installation::with_dev(60);
    let at = |path: &str| -> PathBuf { it.root().join("srv").join(path) };
    // The folder is a link to a release, which has a ConfigMap, a package of another place, and single files.
    for release in ["7", "8", "other"] {
        let inside = |path: &str| at(&format!("releases/{release}/{path}"));
        write(&inside("release.txt"), release);
        write(&inside("..2026_11_29_1/etl.py"), ETL);
        write(&inside("..2026_11_29_1/helper.py"), &helper("map 1"));
        link("..2026_11_29_1", &inside("..data"));
        link("..data/etl.py", &inside("etl.py"));
        link("..data/helper.py", &inside("helper.py"));
        link(at("packages/latest"), &inside("package"));
        link(at("files/single.py"), &inside("single.py"));
        link("../../later/later.py", &inside("later.py"));
    }
    for package in ["1", "2"] {
        write(&at(&format!("packages/{package}/pack.py")), &dag("pack", package));
    }
    link("1", &at("packages/latest"));
    write(&at("files/single.py"), &dag("single", "one"));
    link("srv/current", &it.root().join("dags"));
    link("releases/7", &at("current"));
    let watched = Watched::add(&it, "dags", &["--delete"]);
    watched.has_uploaded("single.py", Some(&dag("single", "one")));
    watched.has_uploaded("etl.py", Some(ETL));
    watched.has_uploaded("package/pack.py", Some(&dag("pack", "1")));
    assert_eq!(names(&watched.becomes("invalid")["invalid"]), ["later.py"]);

    // A ConfigMap is switched; then a file of the new one is saved.
    watched.follows("helper.py", &helper("map 2"), || {
        write(&at("releases/7/..2026_11_29_2/etl.py"), ETL);
        write(&at("releases/7/..2026_11_29_2/helper.py"), &helper("map 2"));
        link("..2026_11_29_2", &at("releases/7/..data"));
    });
    watched.follows("helper.py", &helper("saved"), || {
        write(&at("releases/7/..2026_11_29_2/helper.py"), &helper("saved"));
    });
    eventually("the DAG with the new module", || {
        let shown = it.dev("dags show", &["--dag-id", "etl", "--json"]);
        (shown.code == 0 && shown.json()["description"] == "saved").then_some(())
    });

    // A link on the way to a folder, and what is saved in its new target.
    watched.follows("package/pack.py", &dag("pack", "2"), || link("2", &at("packages/latest")));
    watched.follows("package/deep/new.sql", "select 1\n", || write(&at("packages/2/deep/new.sql"), "select 1\n"));
    watched.follows("package/deep/new.sql", "select 2\n", || write(&at("packages/2/deep/new.sql"), "select 2\n"));

    // A single file is replaced; another link becomes whole and broken again.
    watched.follows("single.py", &dag("single", "two"), || {
        write(&at("files/other"), &dag("single", "two"));
        fs::rename(at("files/other"), at("files/single.py")).expect("renamed");
    });
    watched.follows("later.py", &dag("later", "one"), || write(&at("later/later.py"), &dag("later", "one")));
    watched.becomes("in_sync");
    fs::remove_file(at("later/later.py")).expect("removed");
    assert_eq!(names(&watched.becomes("invalid")["invalid"]), ["later.py"]);
    watched.has_uploaded("later.py", Some(&dag("later", "one")));
    watched.follows("later.py", &dag("later", "two"), || write(&at("later/later.py"), &dag("later", "two")));

    // What is only touched is not uploaded, neither the link nor the file.
    let uploads = watched.becomes("in_sync")["uploads"].as_i64().expect("a number");
    for path in ["files/single.py", "releases/7/..2026_11_29_2/helper.py", "releases/7/release.txt"] {
        let file = fs::File::options().append(true).open(at(path)).expect("the file");
        file.set_modified(SystemTime::now() + Duration::from_secs(5)).expect("touched");
    }
    link("releases/7", &at("current"));
    watched.follows("release.txt", "touched", || write(&at("releases/7/release.txt"), "touched"));
    assert_eq!(watched.uploads(), uploads + 1, "what was only touched was uploaded");

    // The folder itself: its link is switched, and then the target is replaced.
    watched.follows("release.txt", "8", || link("releases/8", &at("current")));
    watched.follows("release.txt", "8, saved", || write(&at("releases/8/release.txt"), "8, saved"));
    watched.follows("release.txt", "other", || {
        fs::rename(at("releases/8"), at("releases/old")).expect("renamed");
        fs::rename(at("releases/other"), at("releases/8")).expect("renamed");
    });
    watched.follows("helper.py", &helper("map 3"), || {
        write(&at("releases/8/..2026_11_29_1/helper.py"), &helper("map 3"));
    });
    watched.has_uploaded("package/deep/new.sql", Some("select 2\n"));
    assert_eq!(watched.becomes("in_sync")["mode"], "inotify");

    // What has no end is refused, and the rest goes on.
    for (name, target) in [("all", "/"), ("circle", "circle"), ("daemon", it.home().to_str().expect("text"))] {
        link(target, &at("releases/8").join(name));
    }
    // A single file of the daemon is as little followed as a folder, by whatever way a link comes there.
    fs::create_dir(at("releases/8/deep")).expect("a folder");
    fs::write(it.home().join("data/token"), "secret\n").expect("a file in the daemon's folder");
    symlink(it.home().join("data"), at("way")).expect("a link");
    link(at("way"), &at("releases/8/deep/data"));
    link(at("way/token"), &at("releases/8/token.py"));
    link(it.home().join("data/registry.db"), &at("releases/8/registry.txt"));
    // Of the daemon's files no line says what is parsed.
    link(it.home().join("data/token"), &at("releases/8/deep/.airflowignore"));
    watched.follows("release.txt", "last", || write(&at("releases/8/release.txt"), "last"));
    let watch = watched.becomes("invalid");
    let told = watch["invalid"].as_array().expect("files").iter();
    let told: Vec<_> = told.map(|it| (text(&it["file"]), text(&it["message"]))).collect();
    let expected = [
        ("all", "the link leads back to a folder above it"),
        ("circle", "the link leads nowhere: too many levels of symbolic links"),
        ("daemon", "the link leads to files of the daemon"),
        ("deep/.airflowignore", "the link leads to files of the daemon"),
        ("deep/data", "the link leads to files of the daemon"),
        ("registry.txt", "the link leads to files of the daemon"),
        ("token.py", "the link leads to files of the daemon"),
    ];
    assert_eq!(told, expected);
    assert_eq!(watch["only_on_volume"], json!({"files": [], "total_entries": 0}), "{watch}");
}
