//! What is saved in a watched folder: by editors, by git, with all that DAGs need, and with mistakes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use integration_tests::{Installation, dag_file, eventually, text};
use serde_json::{Value, json};

use super::{Watched, dag, names, write};

#[track_caller]
fn run(program: &str, arguments: &[&str], folder: &Path) {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env("HOME", folder).stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

fn git(folder: &Path, arguments: &[&str]) {
    let mut all = vec!["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "init.defaultBranch=main"];
    all.extend(arguments);
    run("git", &all, folder);
}

/// A way to save the file with this word in it.
type Save<'a> = &'a dyn Fn(&str);

#[test]
fn saves_of_editors_are_uploaded() {
    let it = Installation::with_dev(60);
    let watched = Watched::add(&it, "dags", &["--delete"]);
    let vim = |setting: &str, word: &str| {
        let substitute = format!("%s/description=.[a-z0-9]*./description=\"{word}\"/");
        let arguments = ["-es", "-N", "-u", "NONE", "-c", setting, "-c", &substitute, "-c", "wq", "etl.py"];
        run("vim", &arguments, &watched.folder);
    };
    watched.write("etl.py", &dag("etl", "first"));
    watched.has_uploaded("etl.py", Some(&dag("etl", "first")));
    let saves: [(&str, Save<'_>); 10] = [
        ("vim", &|word| vim("set nobackup", word)),
        ("vimcopy", &|word| vim("set backup backupcopy=yes", word)),
        ("vimrename", &|word| vim("set backup writebackup backupcopy=no", word)),
        ("sed", &|word| {
            run(
                "sed",
                &["-i", &format!("s/description=.[a-z0-9]*./description=\"{word}\"/"), "etl.py"],
                &watched.folder,
            )
        }),
        // VS Code: in place, in two steps.
        ("vscode", &|word| {
            let file = fs::OpenOptions::new().write(true).open(watched.path("etl.py")).expect("the file");
            file.set_len(0).expect("truncated");
            std::io::Write::write_all(&mut &file, dag("etl", word).as_bytes()).expect("written");
        }),
        // With `files.atomicSave`, and libraries that write like that.
        ("atomic", &|word| {
            let temporary = watched.path("etl.py.tmp-17000000001f2e3d");
            write(&temporary, &dag("etl", word));
            fs::rename(temporary, watched.path("etl.py")).expect("renamed");
        }),
        // PyCharm's safe write.
        ("pycharm", &|word| {
            write(&watched.path("etl.py___jb_tmp___"), &dag("etl", word));
            fs::rename(watched.path("etl.py"), watched.path("etl.py___jb_old___")).expect("renamed");
            fs::rename(watched.path("etl.py___jb_tmp___"), watched.path("etl.py")).expect("renamed");
            fs::remove_file(watched.path("etl.py___jb_old___")).expect("removed");
        }),
        // Emacs: a link as a lock, the old file as the backup, a new one.
        ("emacs", &|word| {
            std::os::unix::fs::symlink("me@host.1", watched.path(".#etl.py")).expect("a lock");
            write(&watched.path("#etl.py#"), "autosaved\n");
            fs::rename(watched.path("etl.py"), watched.path("etl.py~")).expect("renamed");
            write(&watched.path("etl.py"), &dag("etl", word));
            fs::remove_file(watched.path("#etl.py#")).expect("removed");
            fs::remove_file(watched.path(".#etl.py")).expect("removed");
        }),
        ("moved", &|word| {
            write(&it.root().join("elsewhere.py"), &dag("etl", word));
            fs::rename(it.root().join("elsewhere.py"), watched.path("etl.py")).expect("renamed");
        }),
        ("replaced", &|word| {
            fs::remove_file(watched.path("etl.py")).expect("removed");
            watched.write("etl.py", &dag("etl", word));
        }),
    ];
    for (editor, save) in saves {
        save(editor);
        watched.has_uploaded("etl.py", Some(&dag("etl", editor)));
    }
    let watch = watched.becomes("in_sync");
    assert_eq!(watch["total_files"], 1, "{watch}");
    assert_eq!(watch["only_on_volume"], json!({"files": [], "total_entries": 0}), "what editors leave is uploaded");
    let listed = eventually("the DAG in the database", || {
        let files = it.dev("dags list", &["--json"]).succeeded().json();
        (files["files"][0]["dags"][0]["dag_id"] == "etl").then_some(files)
    });
    assert_eq!(listed["files"].as_array().map(Vec::len), Some(1), "{listed}");
}

#[test]
fn watched_folder_uploads_all_files_of_dags() {
    let it = Installation::with_dev(60);
    let folder = it.root().join("project/dags");
    write(
        &folder.join("etl.py"),
        "import pathlib\nfrom lib.names import NAME\nfrom airflow.sdk import DAG\n\
                                   sql = (pathlib.Path(__file__).parent / 'sql/load.sql').read_text()\n\
                                   dag = DAG(NAME, description=sql, schedule=None)\n",
    );
    for (name, content) in [
        ("lib/__init__.py", ""),
        ("lib/names.py", "NAME = 'etl'\n"),
        ("sql/load.sql", "select 1\n"),
        ("notes/broken.py", "1 / 0\n"),
        (".airflowignore", "notes/\n"),
        (".venv/lib/x.py", "1 / 0\n"),
        ("env/pyvenv.cfg", ""),
        ("env/lib/x.py", "1 / 0\n"),
        (".git/hooks/x.py", "1 / 0\n"),
    ] {
        write(&folder.join(name), content);
    }
    write(&it.root().join("shared/common.py"), "X = 1\n");
    fs::copy(dag_file("report.py"), folder.join("report.py")).expect("a copy");
    write(&folder.join("plugins/quarterly.py"), &fs::read_to_string(dag_file("plugins/quarterly.py")).expect("text"));
    std::os::unix::fs::symlink("../../shared", folder.join("shared")).expect("a link");
    std::os::unix::fs::symlink("../../shared/common.py", folder.join("common.py")).expect("a link");
    std::os::unix::fs::symlink("nowhere.py", folder.join("dangling.py")).expect("a link");

    let watched = Watched { it: &it, folder };
    let added = it.dev("watch add", &["--wait", watched.folder.to_str().expect("text")]);
    assert_eq!(added.code, 1, "there is something to correct: {added:#?}");
    assert!(added.stdout.contains("dangling.py: the link leads nowhere"), "{added:#?}");
    fs::remove_file(watched.path("dangling.py")).expect("removed");
    let watch = watched.becomes("in_sync");
    assert_eq!(
        (&watch["total_files"], &watch["uploads"], &watch["mode"]),
        (&json!(10), &json!(1), &json!("inotify")),
        "{watch}"
    );
    let mut there: Vec<_> = walk(&it.volume().join("dags"), &it.volume().join("dags"));
    there.sort_unstable();
    let expected = [
        ".airflowignore",
        "common.py",
        "etl.py",
        "lib/__init__.py",
        "lib/names.py",
        "notes/broken.py",
        "plugins/quarterly.py",
        "report.py",
        "shared/common.py",
        "sql/load.sql",
    ];
    assert_eq!(there, expected);
    eventually("the DAGs in the database", || {
        let files = it.dev("dags list", &["--json"]).succeeded().json();
        let dags: Vec<_> =
            files["files"].as_array()?.iter().filter_map(|file| file["dags"][0]["dag_id"].as_str()).collect();
        (dags == ["etl", "report"]).then_some(())
    });

    // A linked file is followed where it is; data and modules are followed like DAGs.
    write(&it.root().join("shared/common.py"), "X = 2\n");
    watched.has_uploaded("common.py", Some("X = 2\n"));
    watched.has_uploaded("shared/common.py", Some("X = 2\n"));
    watched.write("sql/deep/er/new.sql", "select 2\n");
    watched.has_uploaded("sql/deep/er/new.sql", Some("select 2\n"));
    watched.write("sql/deep/er/new.sql", "select 3\n");
    watched.has_uploaded("sql/deep/er/new.sql", Some("select 3\n"));

    // Without --delete, what is deleted stays; it is told so, and so is what came another way.
    fs::remove_dir_all(watched.path("sql/deep")).expect("removed");
    it.upload("greeting.py");
    let expected =
        json!([{"file": "greeting.py", "origin": "other"}, {"file": "sql/deep/er/new.sql", "origin": "kept"}]);
    let mut last = Value::Null;
    let watch = eventually("what is only on the Volume", || {
        let watch = watched.show();
        if watch["only_on_volume"] != last {
            eprintln!("only on the Volume: {}", watch["only_on_volume"]);
            last = watch["only_on_volume"].clone();
        }
        (last["files"] == expected).then_some(watch)
    });

    // Not twice, not inside, not another one with the same files; the same again is fine.
    let again = it.dev("watch add", &[watched.folder.to_str().expect("text"), "--json"]).succeeded().json();
    assert_eq!(again["id"], watch["id"]);
    it.dev("watch add", &[watched.folder.to_str().expect("text"), "--delete"])
        .refused(&["other options", "watch remove"]);
    it.dev("watch add", &[watched.path("sql").to_str().expect("text")]).refused(&["already watched", "hint:"]);
    it.dev("watch add", &[it.root().join("shared").to_str().expect("text")])
        .refused(&["of the same name as", "common.py"]);
    it.dev("watch add", &[it.root().to_str().expect("text")]).refused(&["files of the daemon"]);
    it.dev("watch add", &["/no/such/folder"]).refused(&["/no/such/folder cannot be read"]);
    it.dev("watch add", &[it.root().join("shared").to_str().expect("text"), "--pattern", "{a"]).refused(&["patterns"]);

    let removed = it.dev("watch remove", &[watched.folder.to_str().expect("text")]).succeeded();
    assert!(removed.stdout.contains("its 11 files stay"), "{removed:#?}");
    assert!(watched.on_volume("etl.py").exists());
    it.dev("watch remove", &[watched.folder.to_str().expect("text")]).refused(&["is not watched"]);
}

fn walk(root: &Path, folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let below = |path: PathBuf| match path.is_dir() {
        true => walk(root, &path),
        false => vec![path.strip_prefix(root).expect("below").to_str().expect("text").to_owned()],
    };
    entries.flat_map(below).filter(|name| !name.contains("__pycache__")).collect()
}

#[test]
fn broken_files_are_quarantined_and_others_synced() {
    let it = Installation::with_dev(60);
    let watched = Watched::add(&it, "dags", &["--delete"]);
    watched.write("etl.py", &dag("etl", "good"));
    watched.has_uploaded("etl.py", Some(&dag("etl", "good")));

    // A broken file stays as it was, with the reason and its line, and others go on.
    let broken = dag("etl", "bad") + "1 / 0\n";
    watched.write("etl.py", &broken);
    watched.write("new.py", &dag("new", "good"));
    watched.has_uploaded("new.py", Some(&dag("new", "good")));
    let watch = watched.becomes("invalid");
    let message = "ZeroDivisionError: division by zero\n  File \"etl.py\", line 3, in <module>\n    1 / 0\n    ~~^~~";
    let expected = json!([{"file": "etl.py", "line": 3, "message": message}]);
    assert_eq!((&watch["invalid"], &watch["total_in_sync"]), (&expected, &json!(1)), "{watch}");
    watched.has_uploaded("etl.py", Some(&dag("etl", "good")));
    let listed = it.cli(&["watch", "list"]).succeeded();
    assert!(listed.stdout.contains("etl.py:3: ZeroDivisionError: division by zero"), "{listed:#?}");
    watched.write("etl.py", &dag("etl", "mended"));
    watched.has_uploaded("etl.py", Some(&dag("etl", "mended")));
    watched.becomes("in_sync");

    // A script that is not a DAG file is uploaded, whatever importing it would do, and the scheduler leaves it alone.
    watched.write("script.py", "import sys\nsys.exit(3)\n");
    watched.has_uploaded("script.py", Some("import sys\nsys.exit(3)\n"));
    watched.becomes("in_sync");
    it.dev("dags unpause", &["--dag-id", "new"]).succeeded();
    let errors = it.dev("dags errors", &["--json"]).succeeded().json();
    assert_eq!(errors["total_entries"], 0, "{errors}");

    // A module that breaks a DAG waits, and with it what needs the new one.
    let uses = |name: &str, what: &str| {
        format!("from airflow.sdk import DAG\nfrom lib.names import {what}\ndag = DAG({name:?}, schedule=None)\n")
    };
    watched.write("lib/names.py", "OLD = 1\n");
    watched.write("user.py", &uses("user", "OLD"));
    watched.has_uploaded("user.py", Some(&uses("user", "OLD")));
    watched.becomes("in_sync");
    watched.write("lib/names.py", "NEW = 1\n");
    watched.write("other.py", &uses("other", "NEW"));
    watched.write("alone.py", &dag("alone", "good"));
    watched.has_uploaded("alone.py", Some(&dag("alone", "good")));
    let watch = watched.becomes("invalid");
    let message = text(&watch["invalid"][0]["message"]);
    assert!(message.starts_with("held back, as it would break user.py:2: ImportError"), "{watch}");
    assert_eq!(names(&watch["invalid"]), ["lib/names.py"]);
    let expected = json!([{"file": "other.py", "action": "upload", "reason": "it waits for lib/names.py"}]);
    assert_eq!(watch["pending"], expected, "{watch}");
    watched.has_uploaded("lib/names.py", Some("OLD = 1\n"));
    watched.has_uploaded("other.py", None);
    watched.write("user.py", &uses("user", "NEW"));
    watched.has_uploaded("user.py", Some(&uses("user", "NEW")));
    watched.has_uploaded("other.py", Some(&uses("other", "NEW")));
    watched.has_uploaded("lib/names.py", Some("NEW = 1\n"));
    watched.becomes("in_sync");

    // A module that is still needed is not removed, until nobody needs it.
    fs::remove_dir_all(watched.path("lib")).expect("removed");
    let watch = watched.becomes("invalid");
    assert!(text(&watch["invalid"][0]["message"]).contains("its removal would break"), "{watch}");
    watched.has_uploaded("lib/names.py", Some("NEW = 1\n"));
    fs::remove_file(watched.path("user.py")).expect("removed");
    fs::remove_file(watched.path("other.py")).expect("removed");
    watched.has_uploaded("lib/names.py", None);
    watched.has_uploaded("user.py", None);

    // A file becomes a folder, and the other way round; a file is renamed.
    watched.write("thing", "a file\n");
    watched.write("box/inside.txt", "a file\n");
    watched.has_uploaded("box/inside.txt", Some("a file\n"));
    fs::remove_file(watched.path("thing")).expect("removed");
    fs::remove_dir_all(watched.path("box")).expect("removed");
    watched.write("thing/inside.txt", "in a folder\n");
    watched.write("box", "a file now\n");
    fs::rename(watched.path("alone.py"), watched.path("renamed.py")).expect("renamed");
    watched.has_uploaded("thing/inside.txt", Some("in a folder\n"));
    watched.has_uploaded("box", Some("a file now\n"));
    watched.has_uploaded("renamed.py", Some(&dag("alone", "good")));
    watched.has_uploaded("alone.py", None);
    assert_eq!(watched.becomes("in_sync")["only_on_volume"]["total_entries"], 0);
}

#[test]
fn git_checkout_is_one_upload() {
    const FILES: usize = 500;
    let it = Installation::with_dev(60);
    let folder = it.root().join("dags");
    fs::create_dir(&folder).expect("a folder");
    git(&folder, &["init", "--quiet"]);
    for number in 0..FILES {
        // Few are parsed, so that the test is not about the speed of Airflow.
        let name = if number % 50 == 0 { format!("dag_{number}.py") } else { format!("data/{number}/x.sql") };
        let content =
            if number % 50 == 0 { dag(&format!("dag_{number}"), "first") } else { format!("select {number}\n") };
        write(&folder.join(name), &content);
    }
    git(&folder, &["add", "--all"]);
    git(&folder, &["commit", "--quiet", "--message", "one"]);
    git(&folder, &["checkout", "--quiet", "-b", "two"]);
    for path in walk(&folder, &folder).iter().filter(|path| !path.starts_with(".git")) {
        let old = fs::read_to_string(folder.join(path)).expect("text");
        fs::write(folder.join(path), old.replace("select", "-- two\nselect").replace("first", "second"))
            .expect("written");
    }
    git(&folder, &["commit", "--quiet", "--all", "--message", "two"]);
    let watched = Watched::add(&it, "dags", &["--delete"]);
    let first = watched.becomes("in_sync");
    assert_eq!((&first["total_files"], &first["uploads"]), (&json!(FILES), &json!(1)), "{first}");
    watched.has_uploaded("data/499/x.sql", Some("-- two\nselect 499\n"));

    git(&folder, &["checkout", "--quiet", "main"]);
    watched.has_uploaded("data/499/x.sql", Some("select 499\n"));
    watched.has_uploaded("dag_0.py", Some(&dag("dag_0", "first")));
    let second = watched.becomes("in_sync");
    assert_eq!(
        (&second["total_files"], &second["uploads"]),
        (&json!(FILES), &json!(2)),
        "one checkout, one upload: {second}"
    );
}
