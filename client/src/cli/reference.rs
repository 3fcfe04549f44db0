//! The command line reference in `docs/`: rendered from the grammar and compared with the checked-in page.

use std::{env, fmt::Write, fs};

use clap::{Arg, Command, CommandFactory};

use super::Cli;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/reference/cli.md");
/// Set by `make docs-reference`: writes the page instead of comparing it.
const UPDATE: &str = "UPDATE_DOCS_REFERENCE";
const HEAD: &str = "# Command line

<!-- Generated from the grammar in client/src/cli by `make docs-reference`; a test fails while this page is stale. -->

`airflow-serverless COMMAND --help` prints the same. Every command also takes:

| option | meaning |
|---|---|
| `--json` | Print the result as JSON. The fields have the names of Airflow's REST API: `dag_id`, `dag_run_id`, `state`, … Commands that go on, such as `events` or `ui`, print one object a line |
| `-h`, `--help` | Print help; `--help` prints more than `-h` |

See also [exit codes](exit-codes.md) and [environment variables](environment-variables.md).

";

#[test]
fn page_of_the_command_line_is_current() {
    let page = page();
    if env::var_os(UPDATE).is_some() {
        fs::write(PAGE, page).expect("a written page");
        return;
    }
    let written = fs::read_to_string(PAGE).unwrap_or_default();
    assert!(written == page, "docs/src/reference/cli.md is stale: `make docs-reference` writes it");
}

fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = format!("{HEAD}## Overview\n\n| command | purpose |\n|---|---|\n");
    for command in visible(&root) {
        let name = command.get_name();
        write!(text, "| [`{name}`](#{name})").expect("text");
        let below: Vec<_> = visible(command).map(|below| format!("`{}`", below.get_name())).collect();
        let below = if below.is_empty() { String::new() } else { format!(": {}", below.join(", ")) };
        writeln!(text, "{below} | {} |", cell(&about(command))).expect("text");
    }
    for command in visible(&root) {
        let name = command.get_name();
        if command.has_subcommands() {
            write!(text, "\n## {name}\n\n{}\n", sentence(&about(command))).expect("text");
            visible(command)
                .for_each(|below| section(&mut text, "###", &format!("{name} {}", below.get_name()), below));
        } else {
            section(&mut text, "##", name, command);
        }
    }
    text
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
}

fn section(text: &mut String, level: &str, name: &str, command: &Command) {
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    write!(text, "\n{level} {name}\n\n{}\n\n```text\n{usage}\n```\n", sentence(&about)).expect("text");
    let mut arguments = command.get_arguments().filter(|argument| is_own(argument)).peekable();
    if arguments.peek().is_some() {
        text.push_str("\n| argument | meaning |\n|---|---|\n");
    }
    for argument in arguments {
        writeln!(text, "| {} | {} |", cell(&spelling(argument)), cell(&meaning(argument))).expect("text");
    }
}

/// Whether an argument belongs to one command only.
fn is_own(argument: &Arg) -> bool {
    !argument.is_hide_set() && !matches!(argument.get_id().as_str(), "help" | "version" | "json")
}

/// Formats an argument, such as `-n`, `--lines <N>`.
fn spelling(argument: &Arg) -> String {
    let values = if argument.get_action().takes_values() {
        let names = argument.get_value_names().unwrap_or_default();
        names.iter().map(|name| format!("<{name}>")).collect::<Vec<_>>().join(" ")
    } else {
        String::new()
    };
    let Some(long) = argument.get_long() else { return format!("`{values}`") };
    let short = argument.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    format!("{short}`{}`", format!("--{long} {values}").trim_end())
}

fn meaning(argument: &Arg) -> String {
    let mut text = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let values = argument.get_possible_values();
    if argument.get_action().takes_values() && !values.is_empty() {
        let names: Vec<_> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
        write!(text, ". Values: {}", names.join(", ")).expect("text");
    }
    if let [default] = argument.get_default_values()
        && argument.get_action().takes_values()
    {
        write!(text, ". Default: `{}`", default.to_string_lossy()).expect("text");
    }
    if let Some(variable) = argument.get_env() {
        write!(text, ". Default: the environment variable `{}`", variable.to_string_lossy()).expect("text");
    }
    text
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// Adds full stops to paragraphs; clap strips that of the first one.
fn sentence(text: &str) -> String {
    let ended = |part: &str| if part.ends_with(['.', ':']) { part.to_owned() } else { format!("{part}.") };
    text.split("\n\n").map(ended).collect::<Vec<_>>().join("\n\n")
}

/// Escapes text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
