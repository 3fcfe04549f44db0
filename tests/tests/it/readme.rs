//! The commands of the README's section "By hand", as they stand there.

use std::{fs, process::Command};

use integration_tests::{Installation, workspace};

#[test]
fn the_commands_by_hand_run_as_written() {
    let readme = fs::read_to_string(workspace().join("README.md")).expect("the README");
    let (_, section) = readme.split_once("\n## By hand\n").expect("the section");
    let (_, block) = section.split_once("```sh\n").expect("a block");
    let (commands, _) = block.split_once("```").expect("its end");
    let it = Installation::new();
    let mut shell = Command::new("sh");
    shell.args(["-eux", "-c", commands]).current_dir(workspace()).envs(it.variables());
    let done = shell.env_remove("AIRFLOW_SERVERLESS_ENV").output().expect("a shell");
    let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{stdout}\n{stderr}");
    for part in [
        "etl.py uploaded",
        "Total order value",
        "1 task runs again",
        "region",
        "is watched for dev;",
        "airflowd stopped",
    ] {
        assert!(stdout.contains(part), "no {part:?} in\n{stdout}\n{stderr}");
    }
}
