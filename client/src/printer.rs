//! The only place that prints: data to stdout, everything else to stderr.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::OnceLock,
};

use comfy_table::{Table, presets::NOTHING};
use console::{Term, style};
use serde::Serialize;

use crate::error::CliError;

pub struct Printer {
    json: bool,
    /// The error after which stdout was given up.
    lost: OnceLock<io::Error>,
    pub stderr: Term,
}

impl Printer {
    pub fn new(json: bool) -> Self {
        Self { json, lost: OnceLock::new(), stderr: Term::stderr() }
    }

    /// Whether progress may move the cursor, which dumb terminals do not support.
    pub fn is_live(&self) -> bool {
        !self.json && self.stderr.is_term() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// Whether a person sees the result.
    pub fn is_interactive(&self) -> bool {
        !self.json && self.stderr.is_term() && io::stdout().is_terminal()
    }

    /// Prints the result of a command: as JSON if requested, otherwise as formatted by `human`.
    pub fn result<T: Serialize>(&self, value: &T, human: impl FnOnce(&T) -> String) {
        let text = if self.json {
            serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
        } else {
            printable(&human(value)).into_owned()
        };
        self.print(text.trim_end());
    }

    /// Like [`Printer::result`], for raw data such as the value of a variable: prints the output of `human` byte for
    /// byte.
    pub fn data<T: Serialize>(&self, value: &T, human: impl FnOnce(&T) -> String) {
        if self.json {
            return self.result(value, human);
        }
        self.print(human(value).trim_end());
    }

    /// Prints a text to stdout; returns whether that worked.
    fn print(&self, text: &str) -> bool {
        match writeln!(io::stdout().lock(), "{text}") {
            Ok(()) => true,
            // A closed reader (`| head`) is not a failure of the command.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => false,
            Err(error) => {
                // The first error is reported.
                let _ = self.lost.set(error);
                false
            }
        }
    }

    /// Returns why results could not be printed, if so.
    pub fn lost(&self) -> Option<CliError> {
        let error = self.lost.get()?;
        Some(CliError::input(format!("standard output cannot be written: {error}"), Vec::new(), None))
    }

    /// Asks on the terminal; `None` if there is no terminal.
    pub fn ask(&self, question: &str) -> Option<String> {
        if !self.stderr.is_term() || !io::stdin().is_terminal() {
            return None;
        }
        self.stderr.write_str(question).ok()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).ok()?;
        Some(answer.trim().to_owned())
    }

    /// Asks on the terminal without echo; `None` if there is no terminal.
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

    /// Prints one of many results on a line of its own. Returns whether the reader is still there.
    pub fn line<T: Serialize>(&self, value: &T, human: impl FnOnce(&T) -> String) -> bool {
        self.data_line(value, |value| printable(&human(value)).into_owned())
    }

    /// Like [`Printer::line`], for log lines, which are printed as they were written.
    pub fn data_line<T: Serialize>(&self, value: &T, human: impl FnOnce(&T) -> String) -> bool {
        let text = if self.json {
            serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
        } else {
            human(value)
        };
        self.print(text.strip_suffix('\n').unwrap_or(&text))
    }

    /// Prints a warning, in all output modes.
    pub fn warning(&self, line: &str) {
        let _ = self.stderr.write_line(&format!("{} {}", style("note:").for_stderr().yellow(), printable(line)));
    }

    /// Prints a line about progress.
    pub fn note(&self, line: &str) {
        if !self.json {
            // A closed stderr is ignored.
            let _ = self.stderr.write_line(&printable(line));
        }
    }

    pub fn failure(&self, failure: &CliError) -> ExitCode {
        let (message, hint, errors) = match failure {
            CliError::Refused(problem) | CliError::Failed(problem) => {
                (&problem.detail, &problem.hint, problem.errors.as_slice())
            }
            CliError::Unexpected { message, hint } => (message, hint, [].as_slice()),
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
        let _ = self.stderr.write_str(&printable(&text));
        failure.exit_code()
    }
}

/// Prints a usage error, or help. With `--json` an error is a JSON problem.
pub fn usage(error: &clap::Error) -> ExitCode {
    let asks_for_json = std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json");
    if error.use_stderr() && asks_for_json {
        let text = error.to_string();
        let detail = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let problem = CliError::input(detail, Vec::new(), Some("`--help` lists commands and options")).problem();
        Printer::new(true).result(&problem, |_| String::new());
    }
    // An output error is ignored.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Formats a table without borders, like `kubectl` and `docker`.
pub fn table<R: IntoIterator<Item = Vec<String>>>(header: &[&str], rows: R) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| one_line(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.to_string()
}

/// The color sequences that this program prints.
const COLORS: [&str; 8] =
    ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[34m", "\u{1b}[36m"];

/// Whether a character is invisible and affects the text around it, such as its position, color or direction.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes text from untrusted sources: control characters appear as `\u{1b}`, except for colors, line breaks and tabs.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |character| !is_unseen(character) || matches!(character, '\n' | '\t'))
}

/// Like [`printable`], for text that must stay on one line.
fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |character| !is_unseen(character))
}

fn escaped(text: &str, is_plain: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let color = COLORS.iter().find(|color| rest.starts_with(**color));
        let taken = color.map_or(character.len_utf8(), |color| color.len());
        match color {
            Some(color) => shown.push_str(color),
            None if is_plain(character) => shown.push(character),
            None => shown.extend(character.escape_default()),
        }
        rest = &rest[taken..];
    }
    Cow::Owned(shown)
}

/// Formats a count: `1 task`, `2 tasks`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Formats untrusted text for a table cell: on one line, without control characters, and truncated.
pub fn cell(text: &str) -> String {
    const LONGEST: usize = 60;
    let plain = text.replace(|character: char| character.is_control(), " ");
    let words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

/// Indents all lines but the first, so that they visibly belong to it.
pub fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

/// Formats `1.2 s`, or a dash if unknown.
pub fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} s"))
}

pub fn date(value: Option<chrono::DateTime<chrono::Utc>>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// Formats a state in Airflow's colors.
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
    fn cells_are_cut_to_one_line_without_control_characters() {
        assert_eq!(cell("How\n much?\t\u{1b}[2JNow"), "How much? [2JNow");
        assert_eq!(cell(&"ä".repeat(60)), "ä".repeat(60));
        assert_eq!(cell(&"ä".repeat(61)), format!("{}…", "ä".repeat(60)));
    }

    #[test]
    fn control_characters_are_escaped() {
        for (text, shown) in [
            ("plain ünïcode ✓", "plain ünïcode ✓"),
            ("two\n\tlines", "two\n\tlines"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\u{1b}]0;title\u{7}", "a\\u{1b}]0;title\\u{7}"),
            ("over\rwritten", "over\\rwritten"),
            ("\u{9b}31mC1", "\\u{9b}31mC1"),
            ("nm.\u{202e}yp", "nm.\\u{202e}yp"),
            ("\u{1b}[31mred\u{1b}[0m", "\u{1b}[31mred\u{1b}[0m"),
            ("hidden\u{1b}[8m", "hidden\\u{1b}[8m"),
        ] {
            assert_eq!(printable(text), shown);
        }
        let rows = table(&["FILE"], [vec!["a\nb\u{1b}[1Ac".to_owned()]]);
        assert_eq!(rows.lines().nth(1).map(str::trim_end), Some("a\\nb\\u{1b}[1Ac"));
    }

    #[test]
    fn counted_nouns_are_singular_or_plural() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "task")), ["0 tasks", "1 task", "2 tasks"]);
    }
}
