//! What the command line prints, as whole texts: progress, empty lists, `doctor`, refusals. The snapshots are for people
//! to read, as users do.

use std::fmt::Write;

use integration_tests::{Done, Installation};

/// What differs from one installation or machine to the next.
const FILTERS: [(&str, &str); 20] = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
    (r"(manual|scheduled)__[0-9T:.+-]+(_\w+)?", "$1__<date>"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "<time>"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "<time>"),
    (r"\d{4}-\d\d-\d\d", "<date>"),
    (r"pid \d+", "pid <pid>"),
    (r"\d+(\.\d+)? (s|ms)\b", "<duration>"),
    (r"\$\d+\.\d+", "$<amount>"),
    (r"/\S+/bin/python", "<interpreter>"),
    (r"program: /\S+", "program: <airflowd>"),
    (r"\bap-\w+", "<app id>"),
    // The first test of all makes the runtime, and a state may pass unseen.
    (r"(?m)^  Prepare the Python runtime: .*\n", ""),
    (r"(?m)^greet (scheduled|queued|running)\n", ""),
    (r"/\S+/home/", "<home>/"),
    (r"/\S*/as-\w+", "<folder>"),
    // What else is on the machine is not for these tests.
    (r"(?m)^. (folder watches|temporary files|disk|clock): .*\n(  fix: .*\n)?", "  $1: <depends on the machine>\n"),
    (r"0\.1\.0", "<version>"),
    (r"[0-9a-f]{40,64}", "<hash>"),
    (r" +\n", "\n"),
    (r" {3,}", "   "),
];

/// What commands print, one after the other.
struct Transcript<'a> {
    it: &'a Installation,
    text: String,
}

impl Transcript<'_> {
    fn run(&mut self, command: &str) -> Done {
        let words: Vec<String> = command.split(' ').map(|word| word.replace("FOLDER", &self.folder())).collect();
        let done = self.it.cli(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let folder = self.folder();
        let plain = |text: &str| text.replace(&folder, "<folder>");
        writeln!(self.text, "$ airflow-serverless {}", plain(&words.join(" "))).expect("a line");
        for (name, text) in [("stdout", &done.stdout), ("stderr", &done.stderr)] {
            if !text.is_empty() {
                writeln!(self.text, "[{name}]\n{}", plain(text).trim_end()).expect("lines");
            }
        }
        writeln!(self.text, "[exit code {}]\n", done.code).expect("a line");
        done
    }

    fn folder(&self) -> String {
        self.it.root().to_str().expect("text").to_owned()
    }
}

#[test]
fn texts_of_the_command_line() {
    let it = Installation::new();
    it.write("config.yaml", &integration_tests::config(3600));
    it.write("wrong.yaml", "database:\n  type: mysql\nschedular: {}\n");
    it.write("broken.py", "def f(:\n");
    std::fs::create_dir(it.root().join("dags")).expect("a folder");
    it.write("dags/greeting.py", &std::fs::read_to_string(integration_tests::dag_file("greeting.py")).expect("a file"));
    let mut transcript = Transcript { it: &it, text: String::new() };
    let commands = [
        "daemon status",
        "daemon stop",
        "doctor",
        "env list",
        "auth status",
        "watch list",
        "operations list",
        "dags list --env dev",
        "create --env dev --config FOLDER/wrong.yaml",
        "create --env dev --config FOLDER/missing.yaml",
        "create --env dev --config FOLDER/config.yaml",
        "create --env dev --config FOLDER/config.yaml",
        "env list",
        "dags list --env dev",
        "dags errors --env dev",
        "runs list --env dev",
        "backfills list --env dev",
        "tasks questions --env dev",
        "variables list --env dev",
        "connections list --env dev",
        "env backups --env dev",
        "doctor",
        "dags create --env dev --file FOLDER/broken.py",
        "dags create --env dev --file FOLDER/dags",
        "dags trigger --env dev --dag-id nope",
        "dags trigger --env dev --dag-id nope --conf 3",
        "runs show --env dev --dag-id nope --run-id x",
        "variables get --env dev nope",
        "connections get --env dev nope",
        "pools get --env dev nope",
        "watch add FOLDER/dags --env dev --wait",
        "watch list --env dev",
        "tick --env dev",
        "dags list --env dev",
        "dags trigger --env dev --dag-id greeting --run-id one --wait",
        "tasks list --env dev --dag-id greeting --run-id one",
        "tasks retry --env dev --dag-id greeting --run-id one --task-id greet",
        "watch add FOLDER/dags --env dev --delete",
        "watch remove FOLDER/dags",
        "watch remove FOLDER/dags",
        "dags delete --env dev --dag-id greeting",
        "env delete --env dev",
        "env delete --env dev --yes",
        "env show --env dev",
        "daemon stop",
        "daemon logs --lines 0",
    ];
    for command in commands {
        transcript.run(command);
    }
    let text = transcript.text;
    insta::with_settings!({ filters => FILTERS, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("command_line", text);
    });
}
