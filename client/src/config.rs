//! Reads `config.yaml`: expands variables and reports all faults with their lines.

use std::path::Path;

use airflow_serverless_api::{
    config::{Config, PreviousConfig},
    problem::Fault,
    secret::{Secret, without_credentials},
};

use crate::{error::CliError, input_file};

/// Size limit: a configuration is about a page of text.
const MAX_BYTES: u64 = 1 << 20;

/// Reads and checks a configuration for an environment that was so before.
pub fn read(path: &Path, before: PreviousConfig<'_>) -> Result<Config, CliError> {
    let shown = path.display().to_string();
    let text = text_of(path, &shown)?;
    let lookup = |name: &str| std::env::var(name).ok();
    parse(&text, &lookup, before).map_err(|faults| {
        let faults = faults.into_iter().map(|fault| locate(fault, &text)).collect();
        CliError::input(
            format!("{shown} is not a valid configuration"),
            faults,
            Some("`airflow-serverless create --help` shows all keys"),
        )
    })
}

fn text_of(path: &Path, shown: &str) -> Result<String, CliError> {
    let unreadable = |why: String| CliError::input(format!("{shown} cannot be read: {why}"), Vec::new(), None);
    let bytes = input_file::read(path, MAX_BYTES).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text".to_owned()))
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

fn parse(text: &str, lookup: Lookup<'_>, before: PreviousConfig<'_>) -> Result<Config, Vec<Fault>> {
    // Plain values are put in before parsing, so that numbers can come from variables. All others would be read as
    // YAML there (a password may hold any character): they wait for the parsed text.
    let plain = |name: &str| lookup(name).filter(|value| is_plain(value));
    let expanded = expand(text, &plain, |reference| Ok(reference.to_owned())).map_err(|fault| vec![fault])?;
    let mut config: Config = serde_saphyr::from_str(&expanded).map_err(|error| vec![explain(&error, text)])?;
    let fill = |location: &str, text: &str| {
        expand(text, lookup, |reference| {
            Err(Fault::new(location, format!("{reference} is not set in the environment")))
        })
        .map_err(|fault| vec![fault])
    };
    for secret in [&mut config.connection_string, &mut config.database.connection_string].into_iter().flatten() {
        *secret = Secret::new(fill("connection_string", secret.expose())?);
    }
    if let Some(certificate) = &mut config.database.root_certificate {
        *certificate = fill("root_certificate", certificate)?;
    }
    for (name, value) in &mut config.env {
        let Some(secret) = value else { continue };
        *secret = Secret::new(fill(&format!("env.{name}"), secret.expose())?);
    }
    for (section, options) in &mut config.airflow.options {
        for (option, value) in options {
            let Some(secret) = value else { continue };
            *secret = Secret::new(fill(&format!("airflow.{section}.{option}"), secret.expose())?);
        }
    }
    config.validate(before).map(|()| config)
}

fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Replaces each `${NAME}`; `missing` handles those that `lookup` does not know.
fn expand(text: &str, lookup: Lookup<'_>, missing: impl Fn(&str) -> Result<String, Fault>) -> Result<String, Fault> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, reference) = rest.split_at(start);
        result.push_str(before);
        let Some(end) = reference.find('}') else {
            rest = reference;
            break;
        };
        let (reference, after) = reference.split_at(end + 1);
        match lookup(&reference[2..end]) {
            Some(value) => result.push_str(&value),
            None => result.push_str(&missing(reference)?),
        }
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

/// Rewrites a parser error in terms of the configuration.
fn explain(error: &serde_saphyr::Error, text: &str) -> Fault {
    let location = error.location();
    let line = location.and_then(|location| u32::try_from(location.line()).ok());
    let column = location.and_then(|location| usize::try_from(location.column()).ok()).unwrap_or(1);
    let raw = error.without_snippet().to_string();
    let raw = raw.split(" at line ").next().unwrap_or(&raw);
    let source = line.and_then(|line| text.lines().nth(line as usize - 1)).unwrap_or_default();
    let (key, value) = entry_at(source, column);
    // For a missing key the parser reports the place where the keys of its object begin.
    if let Some(missing) = raw.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        return absent_key(missing, line);
    }
    let is_empty = text.lines().all(|line| matches!(line.trim().bytes().next(), None | Some(b'#')));
    if is_empty {
        let message = "the file is empty; the smallest is `database: {type: sqlite}`".to_owned();
        return Fault { location: "config".to_owned(), line: Some(1), message };
    }
    let message = if raw.starts_with("cannot deserialize null into string") {
        "expected a key, not `null`; quote it if the key is \"null\"".to_owned()
    } else if source.contains(':')
        && is_null(value)
        && (raw.starts_with("expected mapping") || raw.starts_with("invalid"))
    {
        "has no value: set one or remove the key".to_owned()
    } else if let Some(rest) = raw.strip_prefix("unknown field `") {
        unknown_key(rest)
    } else if let Some(rest) = raw.strip_prefix("unknown variant `") {
        let known = rest.rsplit_once("`, expected one of ").map_or("?", |(_, known)| known);
        let why = if is_null(value) { "has no value".to_owned() } else { format!("`{value}` is not supported") };
        format!("{why}: use one of {known}")
    } else if raw.starts_with("invalid u32") {
        format!("must be a whole number greater than 0, not `{value}`")
    } else if raw.starts_with("invalid boolean") {
        format!("must be true or false, not `{value}`")
    } else if raw.starts_with("expected mapping") {
        "expected keys and values, as in `key: value`".to_owned()
    } else if raw.starts_with("duplicate mapping key") {
        "duplicate key".to_owned()
    } else if raw.starts_with("multiple YAML documents") {
        "a second document starts before this line: remove the `---`".to_owned()
    } else {
        raw.to_owned()
    };
    // The misplaced value may be a connection string.
    let message = without_credentials(&message).into_owned();
    Fault { location: key.unwrap_or("config").to_owned(), line, message }
}

fn absent_key(key: &str, line: Option<u32>) -> Fault {
    let (line, message) = match key {
        "database" => (Some(1), "is missing; the smallest is `database: {type: sqlite}`"),
        "type" => (line, "is missing: sqlite or postgres"),
        _ => (line, "is missing"),
    };
    Fault { location: key.to_owned(), line, message: message.to_owned() }
}

/// Whether YAML parses a value as null.
fn is_null(value: &str) -> bool {
    let value = value.split_once(" #").map_or(value, |(value, _)| value).trim();
    matches!(value, "" | "~" | "null" | "Null" | "NULL") || value.starts_with('#')
}

/// Returns the key, if it is a plain word, and the value of the entry at a column (from 1) of a line.
fn entry_at(source: &str, column: usize) -> (Option<&str>, &str) {
    let at = source.char_indices().nth(column.saturating_sub(1)).map_or(source.len(), |(index, _)| index);
    // One line can hold several entries: `{a: 1, b: 2}`. Braces of `${NAME}` do not count.
    let mut shape = source.to_owned();
    while let Some(start) = shape.find("${") {
        let end = shape[start..].find('}').map_or(shape.len(), |length| start + length + 1);
        shape.replace_range(start..end, &"_".repeat(end - start));
    }
    let start = shape[..at].rfind(['{', '[', ',']).map_or(0, |index| index + 1);
    let end = shape[at..].find(['}', ']', ',', '#']).map_or(source.len(), |index| at + index);
    let entry = source[start..end].trim();
    let (key, value) = entry.split_once(':').map_or((entry, ""), |(key, value)| (key.trim(), value.trim()));
    let is_word = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_word.then_some(key), value)
}

/// `rest` is the text after "unknown field `".
fn unknown_key(rest: &str) -> String {
    let (found, known) = rest.split_once("`, expected one of ").unwrap_or((rest, ""));
    let known: Vec<&str> = known.split(", ").map(|key| key.trim_matches('`')).collect();
    let nearest = known.iter().max_by(|a, b| strsim::jaro_winkler(found, a).total_cmp(&strsim::jaro_winkler(found, b)));
    match nearest {
        Some(nearest) if strsim::jaro_winkler(found, nearest) > 0.7 => {
            format!("unknown key `{found}`; did you mean `{nearest}`?")
        }
        _ => format!("unknown key `{found}`; known here: {}", known.join(", ")),
    }
}

/// Adds the line to a fault that has only a key: the first line of that key within its parents.
fn locate(mut fault: Fault, text: &str) -> Fault {
    if fault.line.is_some() {
        return fault;
    }
    let mut lines = text.lines().zip(1..);
    let (mut parent, mut key): (Option<(&str, u32)>, String) = (None, String::new());
    for part in fault.location.split('.') {
        // A key may contain dots itself, such as the section `common.io`.
        key = if key.is_empty() { part.to_owned() } else { format!("{key}.{part}") };
        let entry = format!("{key}:");
        let inside = parent.filter(|(line, _)| line.trim_start().find(&entry).is_some_and(|at| at > 0));
        let below = || lines.clone().find(|(line, _)| line.trim_start().starts_with(&entry));
        if let Some(found) = inside.or_else(below) {
            lines = text.lines().zip(1..);
            lines.nth(found.1 as usize - 1);
            (parent, key) = (Some(found), String::new());
        }
    }
    fault.line = parent.filter(|_| key.is_empty()).map(|(_, line)| line);
    fault
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        let mut faults = parse(text, &|_| None, PreviousConfig::Nothing).expect_err("a fault");
        locate(faults.remove(0), text)
    }

    #[test]
    fn config_equal_to_the_defaults_is_parsed() {
        let text = "database:\n  type: sqlite # or 'postgres'\nscheduler:\n  interval_seconds: 60\nexecutor:\n  parallelism: 16\n  task_timeout: 3600\n";
        assert_eq!(parse(text, &|_| None, PreviousConfig::Nothing).expect("valid"), Config::default());
    }

    #[test]
    fn config_errors_have_a_line_and_a_hint() {
        let cases = [
            ("", Some(1), "empty"),
            ("database: [", Some(1), ""),
            ("hello", Some(1), "key: value"),
            ("databse:\n  type: sqlite\n", Some(1), "unknown key `databse`; did you mean `database`?"),
            ("database:\n  type: sqlite\nexecuter:\n  parallelism: 1\n", Some(3), "did you mean `executor`?"),
            ("# mine\n\nscheduler:\n  interval_seconds: 60\n\n\n", Some(1), "`database: {type: sqlite}`"),
            ("# nothing but words\n", Some(1), "the file is empty; the smallest is `database: {type: sqlite}`"),
            ("{}", Some(1), "`database: {type: sqlite}`"),
            ("scheduler:\n  interval_seconds: 60\ndatabase:\n  connection_string: x\n", Some(4), "sqlite or postgres"),
            ("database:\n", Some(1), "has no value"),
            ("database: # none\nexecutor:\n  parallelism: 3\n", Some(1), "has no value"),
            ("database:\n\n# none\n\nexecutor:\n  parallelism: 3\n", Some(1), "has no value"),
            ("executor: {parallelism: 3}\ndatabase:\n\n\n", Some(2), "has no value"),
            ("database:\n  type:\n", Some(2), "has no value: use one of sqlite, postgres"),
            ("database:\n  type: sqlite\nscheduler: ~\n", Some(3), "has no value"),
            ("database:\n  type: sqlite\nscheduler:\n  interval_seconds: null\n", Some(4), "has no value"),
            ("database:\n  type: sqlite\nenv: null\n", Some(3), "has no value"),
            ("database:\n  type: sqlite\nnull: 3\n", Some(3), "expected a key, not `null`"),
            ("database:\n  type: sqlite\n~: 3\nexecutor:\n  parallelism: 3\n", Some(3), "expected a key, not `null`"),
            ("database:\n  type: sqlite\nenv:\n  A: x\n  null: y\n", Some(5), "expected a key, not `null`"),
            ("database:\n  type: sqlite\nairflow:\n  core:\n    ~: x\n", Some(5), "expected a key, not `null`"),
            ("database:\n  type: mysql\n", Some(2), "use one of sqlite, postgres"),
            ("database:\n  type: sqlite\nschedular:\n  interval_seconds: 1\n", Some(3), "did you mean `scheduler`?"),
            ("database:\n  type: sqlite\nscheduler:\n  interval: 1\n", Some(4), "did you mean `interval_seconds`?"),
            ("database:\n  type: sqlite\nscheduler:\n  interval_seconds: soon\n", Some(4), "not `soon`"),
            ("database:\n  type: sqlite\nscheduler:\n  interval_seconds: 0\n", Some(4), "from 1 to 86400"),
            ("database:\n  type: postgres\n", None, "is required with"),
            ("database:\n  type: sqlite\nairflow:\n  core:\n    max_map_lenght: 3\n", Some(5), "`max_map_length`?"),
            ("database:\n  type: sqlite\nairflow: {core: {max_map_length: x}}\n", Some(3), "a whole number"),
            ("database:\n  type: sqlite\nairflow:\n  max_map_length: 3\n", Some(4), "write `core: {max_map_length"),
            ("database:\n  type: sqlite\nairflow:\n  core:\n    max_map_length: [3]\n", Some(5), "a number or"),
            ("database:\n  type: sqlite\nairflow:\n  core:\n    max_map_length:\n", Some(5), "has no value"),
            (
                "database:\n  type: sqlite\nexecutor:\n  parallelism: 3\nairflow:\n  core:\n    parallelism: 3\n",
                Some(7),
                "set `executor.parallelism`",
            ),
            ("database:\n  type: sqlite\nairflow:\n  common.io:\n    x: 3\n", Some(5), "is unknown"),
        ];
        for (text, line, part) in cases {
            let fault = fault(text);
            assert_eq!(fault.line, line, "{text:?}: {fault:?}");
            assert!(fault.message.contains(part), "{text:?}: {fault:?}");
        }
    }

    #[test]
    fn errors_in_flow_style_lines_name_the_entry() {
        let text = "{database: {type: sqlite}, scheduler: {interval_seconds: often}}\n";
        let found = fault(text);
        assert_eq!((found.location.as_str(), found.line), ("interval_seconds", Some(1)), "{found:?}");
        assert!(found.message.ends_with("not `often`"), "{found:?}");
        assert!(fault("database:\n  type: sqlite\n  type: sqlite\n").message.contains("duplicate key"));
        assert!(fault("database:\n  type: sqlite\n---\na: 1\n").message.contains("`---`"));
        assert_eq!(entry_at("  key: value # why", 8), (Some("key"), "value"));
        assert_eq!(entry_at("key: ${NAME}", 6), (Some("key"), "${NAME}"));
        assert_eq!(entry_at("{a: ${A}, b: ${B}, c: ${C", 14), (Some("b"), "${B}"));
        assert_eq!(entry_at("", 1), (None, ""));
        assert_eq!(entry_at("\u{e4}\u{e4}", 9), (None, ""));
    }

    #[test]
    fn variables_are_expanded_in_numbers_and_secrets() {
        let text = "database:\n  type: sqlite\nscheduler:\n  interval_seconds: ${EVERY}\n# ${UNSET}\n";
        let config =
            parse(text, &|name| (name == "EVERY").then(|| "15".to_owned()), PreviousConfig::Nothing).expect("valid");
        assert_eq!(config.scheduler.interval_seconds, 15);
        let url = expand("postgresql://u:${PW}@h/d", &|_| Some("a\"b: c#".to_owned()), |_| unreachable!());
        assert_eq!(url.expect("expands"), "postgresql://u:a\"b: c#@h/d");
        let text = "database:\n  type: postgres\n  connection_string: postgresql://u:${PW}@h/d\n";
        assert!(fault(text).message.contains("${PW} is not set"));
        let text = "database:\n  type: sqlite\nenv:\n  AIRFLOW_VAR_A: ${PW}\n  PORT: ${PORT}\n";
        let lookup = |name: &str| Some(if name == "PW" { "a\"b: c#" } else { "8080" }.to_owned());
        let config = parse(text, &lookup, PreviousConfig::Nothing).expect("valid");
        let values: Vec<_> = config.env.values().flatten().map(Secret::expose).collect();
        assert_eq!(values, ["a\"b: c#", "8080"]);
        let text = "database:\n  type: sqlite\nairflow:\n  secrets:\n    backend_kwargs: ${PW}\n";
        let config = parse(text, &|_| Some("{\"a\": \"b: c#\"}".to_owned()), PreviousConfig::Nothing).expect("valid");
        let kwargs = config.airflow.options["secrets"]["backend_kwargs"].as_ref().map(Secret::expose);
        assert_eq!(kwargs, Some("{\"a\": \"b: c#\"}"));
        let text = "database:\n  type: sqlite\nenv:\n  AIRFLOW_VAR_A: ${PW}\n  PORT: ${PORT}\n";
        let unset = fault(text);
        assert_eq!((unset.line, unset.location.as_str()), (Some(4), "env.AIRFLOW_VAR_A"), "{unset:?}");
    }
}
