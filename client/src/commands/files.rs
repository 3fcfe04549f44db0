//! Import and export files in Airflow's formats: an object by name, as JSON, YAML or `.env`.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use airflow_serverless_api::{
    page::{ActionOnExisting, Page, Written},
    problem::Fault,
};
use serde_json::{Map, Value, json};

use crate::{
    error::CliError,
    input_file,
    printer::{Printer, counted},
};

/// Size limit: larger files were not written by hand.
const MAX_BYTES: u64 = 4 << 20;
/// As a value or a file name: standard input or output.
const STANDARD: &str = "-";

/// Reads the entries of a file by name. Errors name lines but quote no content, which may be secret.
pub fn read(path: &Path) -> Result<Map<String, Value>, CliError> {
    let refused = |why: String| CliError::input(format!("{} cannot be imported: {why}", path.display()), vec![], None);
    let bytes = input_file::read(path, MAX_BYTES).map_err(refused)?;
    let text = String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8 text".to_owned()))?;
    let parsed = match extension(path) {
        "json" => match inexact_numbers(&text).as_slice() {
            [] => serde_json::from_str(&text).map_err(|error| vec![(error.line(), "not valid JSON")]),
            lines => Err(lines.iter().map(|line| (*line, "too large a number: write it as text, in quotes")).collect()),
        },
        "yaml" | "yml" => serde_saphyr::from_str(&text).map_err(|error| {
            let line = error.location().map_or(1, |location| location.line() as usize);
            vec![(line, "not valid YAML")]
        }),
        "env" => parse_env(&text),
        _ => return Err(refused("its name must end in .json, .yaml, .yml or .env".to_owned())),
    };
    match parsed {
        Ok(Value::Object(entries)) => Ok(entries),
        Ok(_) => Err(refused("it must be an object with an entry for each name".to_owned())),
        Err(faults) => {
            let fault = |(line, message): (usize, &str)| Fault {
                location: path.display().to_string(),
                line: u32::try_from(line).ok(),
                message: message.to_owned(),
            };
            let faults = faults.into_iter().map(fault).collect();
            Err(CliError::input(format!("{} cannot be imported", path.display()), faults, None))
        }
    }
}

/// Returns the lines of integers of more than 64 bits, which would lose precision.
fn inexact_numbers(json: &str) -> Vec<usize> {
    let (mut lines, mut line, mut is_text, mut is_escaped) = (Vec::new(), 1, false, false);
    let mut number = String::new();
    for c in json.chars().chain(['\n']) {
        if !is_text && (c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.')) {
            number.push(c);
            continue;
        }
        let is_whole = !number.is_empty() && number.trim_start_matches('-').bytes().all(|digit| digit.is_ascii_digit());
        if is_whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
            lines.push(line);
        }
        number.clear();
        is_text ^= c == '"' && !is_escaped;
        is_escaped = is_text && c == '\\' && !is_escaped;
        line += usize::from(c == '\n');
    }
    lines
}

/// Parses `NAME=value` lines; skips comments and empty lines.
pub fn parse_env(text: &str) -> Result<Value, Vec<(usize, &'static str)>> {
    let mut entries = Map::new();
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() && !value.is_empty() => {
                if entries.insert(name.trim().to_owned(), value.into()).is_some() {
                    faults.push((index + 1, "duplicate name"));
                }
            }
            _ => faults.push((index + 1, "expected NAME=value")),
        }
    }
    if faults.is_empty() { Ok(Value::Object(entries)) } else { Err(faults) }
}

/// Returns the extension of a file name, which determines the format.
pub fn extension(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

pub fn is_standard(path: &Path) -> bool {
    path.as_os_str() == STANDARD
}

/// Refuses to replace a file, unless `force` is set, before anything is fetched for it.
pub fn check_absent(path: &Path, force: bool) -> Result<(), CliError> {
    let is_there = !is_standard(path) && fs::metadata(path).is_ok_and(|found| found.is_file());
    if is_there && !force { Err(exists(path)) } else { Ok(()) }
}

fn exists(path: &Path) -> CliError {
    let message = format!("{} exists already; nothing was exported", path.display());
    CliError::input(message, vec![], Some("`--force` replaces it"))
}

/// Writes a file readable only by its owner, as it may hold secrets; `-` is standard output. `force`: replace a file.
pub fn write(path: &Path, text: &str, force: bool) -> Result<(), CliError> {
    let result = if is_standard(path) {
        match writeln!(io::stdout().lock(), "{}", text.trim_end()) {
            // As for other output: the reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    } else {
        write_file(path, text, force)
    };
    result.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => CliError::input(format!("{} cannot be written: {error}", path.display()), vec![], None),
    })
}

fn write_file(path: &Path, text: &str, force: bool) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).mode(0o600);
    // Writing to pipes and devices needs no `force`.
    if force || fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut file = options.open(path)?;
    if file.metadata()?.is_file() {
        // A replaced file may have been readable for others.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    writeln!(file, "{}", text.trim_end())
}

/// Refuses a file name with the extension of another format than JSON.
pub fn check_json(path: &Path) -> Result<(), CliError> {
    if !matches!(extension(path), "env" | "yaml" | "yml") {
        return Ok(());
    }
    Err(CliError::input(format!("{} would be JSON", path.display()), vec![], Some("give it a name that ends in .json")))
}

/// Reports an export; on stderr if standard output has the export itself.
pub fn exported(nouns: &str, path: &Path, count: usize, printer: &Printer) {
    let what = counted(count, nouns.trim_end_matches('s'));
    if is_standard(path) {
        printer.note(&format!("{what} exported"));
    } else {
        printer.result(&json!({"file": path, "count": count}), |_| format!("{what} exported to {}", path.display()));
    }
}

/// Returns the value of an argument; reads standard input for `-`.
pub fn value(argument: String) -> Result<String, CliError> {
    if argument != STANDARD {
        return Ok(argument);
    }
    let mut text = String::new();
    let read = io::stdin().lock().read_to_string(&mut text);
    read.map_err(|error| CliError::input(format!("standard input cannot be read: {error}"), vec![], None))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Formats as indented JSON with sorted keys.
pub fn pretty(entries: &Map<String, Value>) -> String {
    serde_json::to_string_pretty(entries).unwrap_or_default()
}

/// Returns the next page of an export, of maximum size and with values.
pub fn export_page(seen: usize) -> Page {
    Page {
        limit: Some(Page::LARGEST_LIMIT),
        offset: u32::try_from(seen).ok(),
        show_values: true,
        hide_sensitive: false,
    }
}

/// Describes the result of a write.
pub fn written(nouns: &str, written: &Written, action: ActionOnExisting) -> String {
    let mut text = match written.written.as_slice() {
        [] => format!("no {nouns} written"),
        names => format!("{} written: {}", counted(names.len(), nouns.trim_end_matches('s')), names.join(", ")),
    };
    if action == ActionOnExisting::Skip && !written.skipped.is_empty() {
        text.push_str(&format!("\nskipped: {}", written.skipped.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_numbers_that_lose_precision_are_found() {
        let json = "{\"a\": 18446744073709551615,\n\"b 99999999999999999999\": [-9223372036854775808],\n\
                    \"c\\\"\": 99999999999999999999, \"d\": 1e99,\n\"e\": {\"f\":-9223372036854775809}}";
        assert_eq!(inexact_numbers(json), [3, 4]);
    }

    #[test]
    fn existing_file_is_overwritten_only_with_force() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        write(&path("new"), "one", false).expect("written");
        write(&path("new"), "two", false).expect_err("it exists");
        std::os::unix::fs::symlink(path("new"), path("link")).expect("a link");
        write(&path("link"), "two", false).expect_err("what it leads to exists");
        assert_eq!(fs::read_to_string(path("new")).expect("text"), "one\n");
        check_absent(&path("link"), false).expect_err("known before the export");
        check_absent(&path("absent"), false).expect("nothing is there");
        write(&path("link"), "two", true).expect("asked for");
        assert_eq!(fs::read_to_string(path("new")).expect("text"), "two\n");
        write(Path::new("/dev/null"), "three", false).expect("a device");
        let failure = write(folder.path(), "three", true).expect_err("a folder").problem();
        assert!(failure.detail.contains("cannot be written"), "{failure:?}");
    }

    #[test]
    fn invalid_env_file_lines_are_reported_by_number() {
        let entries = parse_env("# a\n\nA=1\nB = x=y\n").expect("valid");
        assert_eq!(entries, serde_json::json!({"A": "1", "B": " x=y"}));
        let faults = parse_env("A=1\nA=2\nhunter2\n").expect_err("two faults");
        assert_eq!(faults.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3]);
    }
}
