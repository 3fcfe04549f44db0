//! The only place that prints: data to stdout, everything else to stderr.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::OnceLock,
};

use comfy_table::{Table, presets::NOTHING};
use console::{Term, style};
use serde::Serialize;

use crate::failure::Failure;

pub struct Printer {
    json: bool,
    /// The error with which stdout was lost.
    lost: OnceLock<io::Error>,
    pub stderr: Term,
}

impl Printer {
    pub fn new(json: bool) -> Self {
        Self { json, lost: OnceLock::new(), stderr: Term::stderr() }
    }

    /// Whether progress may move the cursor. (A dumb terminal has none that can be moved.)
    pub fn is_live(&self) -> bool {
        !self.json && self.stderr.is_term() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// Whether a person sees the result.
    pub fn is_interactive(&self) -> bool {
        !self.json && self.stderr.is_term() && io::stdout().is_terminal()
    }

    /// The result of a command: as JSON if that was asked for, otherwise as `human` puts it.
    pub fn result<T: Serialize>(&self, value: &T, human: impl FnOnce(&T) -> String) {
        let text = if self.json {
            serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
        } else {
            human(value)
        };
        self.print(text.trim_end());
    }

    /// Prints a text to stdout. Tells whether that worked.
    fn print(&self, text: &str) -> bool {
        match writeln!(io::stdout().lock(), "{text}") {
            Ok(()) => true,
            // A reader that has gone away (`| head`) is no failure of the command.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => false,
            Err(error) => {
                // The first one tells; there is at most one command.
                let _ = self.lost.set(error);
                false
            }
        }
    }

    /// Why results could not be printed, if so.
    pub fn lost(&self) -> Option<Failure> {
        let error = self.lost.get()?;
        Some(Failure::input(format!("standard output cannot be written: {error}"), Vec::new(), None))
    }

    /// Asks on the terminal; `None` if there is nobody to ask.
    pub fn ask(&self, question: &str) -> Option<String> {
        if !self.stderr.is_term() || !io::stdin().is_terminal() {
            return None;
        }
        self.stderr.write_str(question).ok()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).ok()?;
        Some(answer.trim().to_owned())
    }

    /// Asks on the terminal without showing what is typed; `None` if there is nobody to ask.
    pub fn ask_secret(&self, question: &str) -> Option<String> {
        if !self.stderr.is_term() || !io::stdin().is_terminal() {
            return None;
        }
        self.stderr.write_str(question).ok()?;
        self.stderr.read_secure_line().ok()
    }

    /// Whether results are printed as JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// One of many results, on a line of its own. Tells whether anybody may still read them.
    pub fn line<T: Serialize>(&self, value: &T, human: impl FnOnce(&T) -> String) -> bool {
        let text = if self.json {
            serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
        } else {
            human(value)
        };
        self.print(text.strip_suffix('\n').unwrap_or(&text))
    }

    /// What people should know, whatever they asked for.
    pub fn warning(&self, line: &str) {
        let _ = self.stderr.write_line(&format!("{} {line}", style("note:").for_stderr().yellow()));
    }

    /// A line about what is going on.
    pub fn note(&self, line: &str) {
        if !self.json {
            // There is nobody left to tell if stderr is closed.
            let _ = self.stderr.write_line(line);
        }
    }

    pub fn failure(&self, failure: &Failure) -> ExitCode {
        let (message, hint, errors) = match failure {
            Failure::Refused(problem) | Failure::Failed(problem) => {
                (&problem.detail, &problem.hint, problem.errors.as_slice())
            }
            Failure::Unexpected { message, hint } => (message, hint, [].as_slice()),
        };
        let mut text = format!("{} {message}\n", style("error:").for_stderr().red().bold());
        for fault in errors {
            let line = fault.line.map(|line| format!(":{line}")).unwrap_or_default();
            text.push_str(&format!("  {}{line}: {}\n", fault.location, indented(&fault.message)));
        }
        if let Some(hint) = hint {
            text.push_str(&format!("{} {hint}\n", style("hint:").for_stderr().cyan()));
        }
        if self.json {
            self.result(&failure.problem(), |_| String::new());
        }
        let _ = self.stderr.write_str(&text);
        failure.exit_code()
    }
}

/// What is wrong with a command line, or what it asks for about itself. With `--json` a problem is a result, too.
pub fn usage(error: &clap::Error) -> ExitCode {
    let asks_for_json = std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json");
    if error.use_stderr() && asks_for_json {
        let text = error.to_string();
        let detail = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let problem = Failure::input(detail, Vec::new(), Some("`--help` tells of commands and options")).problem();
        Printer::new(true).result(&problem, |_| String::new());
    }
    // There is nobody left to tell if it cannot be printed.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// A table without lines, as `kubectl` and `docker` print them.
pub fn table<R: IntoIterator<Item = Vec<String>>>(header: &[&str], rows: R) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.to_string()
}

/// A text of any author, for a cell of a table: in one line, without control characters, and not too long.
pub fn cell(text: &str) -> String {
    const LONGEST: usize = 60;
    let plain = text.replace(|character: char| character.is_control(), " ");
    let words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

/// Text of several lines, those behind the first indented, so that they are seen to belong to it.
pub fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

/// `1.2 s`, or a dash for what is not known.
pub fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} s"))
}

pub fn date(value: Option<chrono::DateTime<chrono::Utc>>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.format("%Y-%m-%d %H:%M:%S").to_string())
}

/// The state in Airflow's colours.
pub fn state(name: Option<&str>) -> String {
    let name = name.unwrap_or("-");
    let styled = style(name);
    match name {
        "success" => styled.green(),
        "failed" | "upstream_failed" => styled.red(),
        "running" => styled.cyan(),
        "up_for_retry" | "up_for_reschedule" => styled.yellow(),
        _ => styled,
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_one_line_that_moves_no_cursor() {
        assert_eq!(cell("How\n much?\t\u{1b}[2JNow"), "How much? [2JNow");
        assert_eq!(cell(&"ä".repeat(60)), "ä".repeat(60));
        assert_eq!(cell(&"ä".repeat(61)), format!("{}…", "ä".repeat(60)));
    }
}
