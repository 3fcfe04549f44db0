//! What looks like a file and is none: named by the watch, and never read.

use std::{os::unix::net::UnixListener, path::Path, process::Command};

use integration_tests::{Installation, text};

use super::{Watched, dag};

fn pipe(path: &Path) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success(), "{}", path.display());
}

#[test]
fn pipes_sockets_and_devices_are_refused_by_name() {
    let it = Installation::with_dev(60);
    let watched = Watched::add(&it, "dags", &[]);
    // Not one of these keeps the rest from being uploaded.
    let pipes = [".airflowignore", ".git", "dag.py", "team/.airflowignore", "plugins/p.py", "requirements.txt"];
    pipes.iter().for_each(|name| pipe(&watched.path(name)));
    let _listener = UnixListener::bind(watched.path("socket.py")).expect("a socket");
    std::os::unix::fs::symlink("/dev/zero", watched.path("zero.csv")).expect("a link");
    for name in ["etl", "team/report"] {
        watched.write(&format!("{name}.py"), &dag(&name.replace('/', "_"), "one"));
    }
    watched.has_uploaded("etl.py", Some(&dag("etl", "one")));
    watched.has_uploaded("team/report.py", Some(&dag("team_report", "one")));
    let watch = watched.becomes("invalid");
    let told = watch["invalid"].as_array().expect("files").iter();
    let told: Vec<_> = told.map(|it| (text(&it["file"]), text(&it["message"]))).collect();
    let expected = [
        (".airflowignore", "it is a named pipe, not a regular file"),
        ("dag.py", "it is a named pipe, not a regular file"),
        ("plugins/p.py", "it is a named pipe, not a regular file"),
        ("requirements.txt", "it is a named pipe, not a regular file"),
        ("socket.py", "it is a socket, not a regular file"),
        ("team/.airflowignore", "it is a named pipe, not a regular file"),
        ("zero.csv", "it is a device, not a regular file"),
    ];
    assert_eq!(told, expected);

    // A file that has been uploaded, and becomes a pipe, stays on the Volume.
    std::fs::remove_file(watched.path("etl.py")).expect("removed");
    pipe(&watched.path("etl.py"));
    watched.write("team/report.py", &dag("team_report", "two"));
    watched.has_uploaded("team/report.py", Some(&dag("team_report", "two")));
    watched.has_uploaded("etl.py", Some(&dag("etl", "one")));
}
