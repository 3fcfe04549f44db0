//! `variables`, as in Airflow's CLI.

use std::path::Path;

use airflow_serverless_api::{
    Secret,
    environment::EnvironmentName,
    page::{self, ActionOnExisting},
    routes,
    variable::{NewVariable, PutVariables, Variable, VariableList},
};
use serde_json::{Map, Value, json};

use super::{Outcome, files};
use crate::{
    cli::{List, Variables},
    daemon::Daemon,
    error::{CliError, ExitStatus},
    printer::{Printer, table},
    session,
};

const NOUN: &str = "variables";

pub async fn run(command: Variables, printer: &Printer) -> Outcome {
    match command {
        Variables::List(list) => {
            let daemon = session::connect(printer).await?;
            printer.result(&daemon.list(&list.environment.name, routes::VARIABLES, &page(&list)).await?, listing);
        }
        Variables::Get { environment, key, default } => {
            let daemon = session::connect(printer).await?;
            get(&daemon, &environment.name, &key, default, printer).await?;
        }
        Variables::Set { environment, key, value, description } => {
            let variable = NewVariable { key, value: files::value(value)?.into(), description };
            put(&environment.name, vec![variable], ActionOnExisting::Overwrite, printer).await?;
        }
        Variables::Delete { environment, key } => {
            let daemon = session::connect(printer).await?;
            daemon.delete(&environment.name, (routes::VARIABLE, &key)).await?;
            printer.result(&json!({"key": key}), |_| format!("variable {key} deleted"));
        }
        Variables::Import { environment, file, action_on_existing_key } => {
            let variables = files::read(&file)?.into_iter().map(from_file).collect();
            put(&environment.name, variables, action_on_existing_key, printer).await?;
        }
        Variables::Export { environment, file, force } => export(&environment.name, &file, force, printer).await?,
    }
    Ok(ExitStatus::Success)
}

/// Returns the page for the arguments of a list.
pub fn page(list: &List) -> page::Page {
    page::Page {
        limit: Some(list.page.limit),
        offset: Some(list.page.offset),
        show_values: list.show_values,
        hide_sensitive: list.hide_sensitive,
    }
}

async fn get(
    daemon: &Daemon,
    environment: &EnvironmentName,
    key: &str,
    default: Option<String>,
    printer: &Printer,
) -> Result<(), CliError> {
    let variable = match (daemon.get_one::<Variable>(environment, (routes::VARIABLE, key), true).await, default) {
        (Err(CliError::Refused(problem)), Some(default)) if problem.status == 404 => {
            Variable { key: key.to_owned(), value: Some(Secret::new(default)), description: None, is_encrypted: false }
        }
        (answer, _) => answer?,
    };
    printer.data(&variable, |variable| shown(variable.value.as_ref()));
    Ok(())
}

async fn put(
    environment: &EnvironmentName,
    variables: Vec<NewVariable>,
    action: ActionOnExisting,
    printer: &Printer,
) -> Result<(), CliError> {
    let daemon = session::connect(printer).await?;
    let request = PutVariables { variables, action_on_existing_key: action };
    let answer = daemon.put(environment, routes::VARIABLES, &request).await?;
    printer.result(&answer, |answer| files::written(NOUN, answer, action));
    Ok(())
}

/// Parses an entry: a value, or an object with `value` and optionally `description`.
fn from_file((key, entry): (String, Value)) -> NewVariable {
    match entry {
        Value::Object(mut object) if object.contains_key("value") => NewVariable {
            key,
            value: object.remove("value").unwrap_or_default(),
            description: object.get("description").and_then(Value::as_str).map(str::to_owned),
        },
        value => NewVariable { key, value, description: None },
    }
}

async fn export(environment: &EnvironmentName, file: &Path, force: bool, printer: &Printer) -> Result<(), CliError> {
    files::check_json(file)?;
    files::check_absent(file, force)?;
    let daemon = session::connect(printer).await?;
    let mut entries = Map::new();
    loop {
        let list: VariableList =
            daemon.list(environment, routes::VARIABLES, &files::export_page(entries.len())).await?;
        let is_last = list.variables.is_empty();
        entries.extend(list.variables.into_iter().map(to_file));
        if is_last || entries.len() as i64 >= list.total_entries {
            break;
        }
    }
    files::write(file, &files::pretty(&entries), force)?;
    files::exported(NOUN, file, entries.len(), printer);
    Ok(())
}

/// Converts a variable to an entry that imports as the same variable.
fn to_file(variable: Variable) -> (String, Value) {
    let text = shown(variable.value.as_ref());
    let value = match serde_json::from_str::<Value>(&text) {
        Ok(value) if is_stored_as(&value, &text) => value,
        _ => Value::String(text),
    };
    let is_ambiguous = value.get("value").is_some();
    let entry = match &variable.description {
        None if !is_ambiguous => value,
        description => json!({"value": value, "description": description}),
    };
    (variable.key, entry)
}

/// Whether Airflow stores the value as exactly this text: Python's `json.dumps(value, indent=2)`. It formats some
/// floats and all non-ASCII text differently than Rust. A JSON string would be read back as its content.
fn is_stored_as(value: &Value, text: &str) -> bool {
    let is_same = serde_json::to_string_pretty(value).is_ok_and(|pretty| pretty == text);
    !value.is_string() && !has_float(value) && text.is_ascii() && is_same
}

fn has_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_float),
        Value::Object(fields) => fields.values().any(has_float),
        _ => false,
    }
}

fn shown(value: Option<&Secret>) -> String {
    value.map(|value| value.expose().to_owned()).unwrap_or_default()
}

fn listing(list: &VariableList) -> String {
    if list.variables.is_empty() {
        return "no variables; `airflow-serverless variables set --env NAME KEY VALUE` creates one".to_owned();
    }
    let with_values = list.variables.iter().any(|variable| variable.value.is_some());
    let row = |variable: &Variable| {
        let description = variable.description.clone().unwrap_or_else(|| "-".to_owned());
        let mut row = vec![variable.key.clone(), description];
        if with_values {
            row.insert(1, shown(variable.value.as_ref()));
        }
        row
    };
    let header: &[&str] = if with_values { &["KEY", "VALUE", "DESCRIPTION"] } else { &["KEY", "DESCRIPTION"] };
    let mut text = table(header, list.variables.iter().map(row));
    let shown = list.variables.len() as i64;
    if shown < list.total_entries {
        text.push_str(&format!("\n{shown} of {} variables; `--limit` and `--offset` show others", list.total_entries));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the text that the scheduler stores for an imported value.
    fn stored(value: Value) -> String {
        value.as_str().map_or_else(|| serde_json::to_string_pretty(&value).expect("JSON"), str::to_owned)
    }

    #[test]
    fn exported_values_round_trip_through_import() {
        let texts =
            ["plain", "", " ", "7", "-0", "1.10", "1e5", "1e-05", "123456789012345678901234567890", "null", "True"];
        let json = ["true", "\"quoted\"", "{\n  \"a\": 1\n}", "{\"a\":1}", "{\"b\": 1, \"a\": 2}", "[]", " [1]"];
        let odd = ["{\"value\": 2}", "{\n  \"value\": 2\n}", "[\n  \"\u{e4}\"\n]", "a\nb\n", "\u{1f600}\t", "NaN"];
        for text in texts.into_iter().chain(json).chain(odd) {
            for description in [None, Some(""), Some("why\n\u{e4}")] {
                let description = description.map(str::to_owned);
                let value = Some(Secret::new(text));
                let variable = Variable { key: "k".to_owned(), value, description, is_encrypted: true };
                let entry = to_file(variable.clone());
                let file = serde_json::to_string_pretty(&entry).expect("JSON");
                let back = from_file(serde_json::from_str(&file).expect("the same"));
                assert_eq!((stored(back.value), back.description), (text.to_owned(), variable.description), "{file}");
            }
        }
        let pretty = Variable {
            key: "k".to_owned(),
            value: Some(Secret::new("{\n  \"a\": [\n    1\n  ]\n}")),
            description: None,
            is_encrypted: true,
        };
        assert_eq!(to_file(pretty).1, json!({"a": [1]}), "JSON is shown as such");
    }
}
