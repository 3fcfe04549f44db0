//! Inspects a daemon's SQLite files from outside.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

/// Returns the rows of a query, each as an array. Others may be writing to the database.
#[track_caller]
pub fn rows(database: &Path, query: &str) -> Vec<Value> {
    let script = "import json, sqlite3, sys\n\
                  c = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True)\n\
                  print(json.dumps(c.execute(sys.argv[2]).fetchall()))";
    serde_json::from_str(&python(script, database, query)).expect("rows")
}

/// Changes a database in one transaction while its owner has it open.
#[track_caller]
pub fn execute(database: &Path, statements: &str) {
    let script = "import sqlite3, sys\n\
                  c = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n\
                  c.executescript(f'BEGIN IMMEDIATE; {sys.argv[2]}; COMMIT')";
    python(script, database, statements);
}

/// Checks the integrity of a copy of a database and its log, as a crash has left them. The original stays for its owner
/// to recover.
#[track_caller]
pub fn is_whole(database: &Path) {
    let copies = tempfile::tempdir().expect("a folder");
    let copy = copies.path().join("copy.db");
    for suffix in ["", "-wal"] {
        let with_suffix = |path: &Path| format!("{}{suffix}", path.display());
        if Path::new(&with_suffix(database)).exists() {
            fs::copy(with_suffix(database), with_suffix(&copy)).expect("a copy");
        }
    }
    let script = "import sqlite3, sys\n\
                  c = sqlite3.connect(sys.argv[1])\n\
                  found = c.execute('PRAGMA integrity_check').fetchall() + c.execute('PRAGMA foreign_key_check').fetchall()\n\
                  print(found if found != [('ok',)] else '')";
    let faults = python(script, &copy, "");
    assert_eq!(faults.trim(), "", "{} is broken", database.display());
}

#[track_caller]
fn python(script: &str, database: &Path, argument: &str) -> String {
    let mut command = Command::new("python3");
    let output = command.args(["-c", script]).arg(database).arg(argument).output().expect("python3 runs");
    assert!(output.status.success(), "{}: {}", database.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
