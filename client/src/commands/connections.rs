//! `connections`, as in Airflow's CLI.

use std::path::Path;

use airflow_serverless_api::{
    Secret,
    connection::{Connection, ConnectionList, NewConnection, PutConnections},
    environment::EnvironmentName,
    page::ActionOnExisting,
    problem::Fault,
    routes,
};
use serde_json::{Map, Value, json};

use super::{Outcome, files, variables::page};
use crate::{
    cli::{AddConnection, Connections},
    daemon::Daemon,
    error::{CliError, ExitStatus},
    printer::{Printer, table},
    session,
};

const NOUN: &str = "connections";

pub async fn run(command: Connections, printer: &Printer) -> Outcome {
    match command {
        Connections::List(list) => {
            let daemon = session::connect(printer).await?;
            printer.result(&daemon.list(&list.environment.name, routes::CONNECTIONS, &page(&list)).await?, listing);
        }
        Connections::Get { environment, conn_id, show_values } => {
            let daemon = session::connect(printer).await?;
            let connection = daemon.get_one(&environment.name, (routes::CONNECTION, &conn_id), show_values).await?;
            printer.result(&connection, details);
        }
        Connections::Add(arguments) => {
            let environment = arguments.environment.name.clone();
            put(&environment, vec![added(*arguments)?], ActionOnExisting::Fail, printer).await?;
        }
        Connections::Delete { environment, conn_id } => {
            let daemon = session::connect(printer).await?;
            daemon.delete(&environment.name, (routes::CONNECTION, &conn_id)).await?;
            printer.result(&json!({"connection_id": conn_id}), |_| format!("connection {conn_id} deleted"));
        }
        Connections::Import { environment, file, overwrite } => {
            let action = if overwrite { ActionOnExisting::Overwrite } else { ActionOnExisting::Skip };
            let entries = files::read(&file)?.into_iter();
            let connections = entries.map(|(id, entry)| from_file(id, entry)).collect::<Result<_, _>>()?;
            put(&environment.name, connections, action, printer).await?;
        }
        Connections::Export { environment, file, file_format, serialization_format, force } => {
            let format = file_format.unwrap_or_else(|| match files::extension(&file) {
                _ if files::is_standard(&file) => "json".to_owned(),
                "yml" => "yaml".to_owned(),
                extension => extension.to_owned(),
            });
            if !["json", "yaml", "env"].contains(&format.as_str()) {
                let message = format!("the format of {} is not known from its name", file.display());
                return Err(CliError::input(message, vec![], Some("name it with --file-format json, yaml or env")));
            }
            files::check_absent(&file, force)?;
            let connections = all(&session::connect(printer).await?, &environment.name).await?;
            files::write(&file, &text(&connections, &format, &serialization_format)?, force)?;
            files::exported(NOUN, &file, connections.len(), printer);
        }
    }
    Ok(ExitStatus::Success)
}

fn added(arguments: AddConnection) -> Result<NewConnection, CliError> {
    let AddConnection { conn_uri, conn_json, conn_login, conn_password, conn_extra, .. } = &arguments;
    let readable = [conn_uri, conn_json, conn_login, conn_password, conn_extra];
    if readable.into_iter().flatten().filter(|text| files::is_standard(Path::new(text))).count() > 1 {
        return Err(CliError::input("standard input can be read for one value only", vec![], None));
    }
    let text = |argument: Option<String>| argument.map(files::value).transpose();
    let secret = |argument| Ok::<_, CliError>(text(argument)?.map(Secret::new));
    let connection_id = arguments.conn_id;
    if let Some(json) = text(arguments.conn_json)? {
        let parsed: Result<Value, _> = serde_json::from_str(&json);
        let value =
            parsed.map_err(|error| invalid("--conn-json", &format!("not JSON at column {}", error.column())))?;
        let made = from_file(connection_id, value)?;
        return Ok(NewConnection { description: arguments.conn_description.or(made.description), ..made });
    }
    Ok(NewConnection {
        connection_id,
        uri: secret(arguments.conn_uri)?,
        conn_type: arguments.conn_type,
        description: arguments.conn_description,
        host: arguments.conn_host,
        login: text(arguments.conn_login)?,
        password: secret(arguments.conn_password)?,
        schema: arguments.conn_schema,
        port: arguments.conn_port.map(i32::from),
        extra: secret(arguments.conn_extra)?,
    })
}

async fn put(
    environment: &EnvironmentName,
    connections: Vec<NewConnection>,
    action: ActionOnExisting,
    printer: &Printer,
) -> Result<(), CliError> {
    let daemon = session::connect(printer).await?;
    let request = PutConnections { connections, action_on_existing_key: action };
    let answer = daemon.put(environment, routes::CONNECTIONS, &request).await?;
    printer.result(&answer, |answer| files::written(NOUN, answer, action));
    Ok(())
}

/// Parses an entry: a URI, an object of fields, or a list with one of these.
fn from_file(connection_id: String, entry: Value) -> Result<NewConnection, CliError> {
    let fields = match entry {
        Value::Array(mut entries) if entries.len() == 1 => return from_file(connection_id, entries.remove(0)),
        // An `.env` file may hold an object as JSON.
        Value::String(text) if text.trim_start().starts_with('{') => match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => fields,
            _ => return Err(invalid(&connection_id, "the value is not a JSON object")),
        },
        Value::String(uri) => return Ok(NewConnection { connection_id, uri: Some(Secret::new(uri)), ..default() }),
        Value::Object(fields) => fields,
        _ => return Err(invalid(&connection_id, "expected a URI or an object with its fields")),
    };
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let mut made = NewConnection { connection_id, ..default() };
    for (name, value) in &fields {
        match name.as_str() {
            "conn_id" | "connection_id" if value.as_str() == Some(&made.connection_id) => {}
            "uri" => made.uri = text(value).map(Secret::new),
            "conn_type" => made.conn_type = text(value),
            "description" => made.description = text(value),
            "host" => made.host = text(value),
            "login" => made.login = text(value),
            "password" => made.password = text(value).map(Secret::new),
            "schema" => made.schema = text(value),
            "port" => {
                made.port = port(value).ok_or_else(|| invalid(&made.connection_id, "`port` is not a port number"))?
            }
            "extra" | "extra_dejson" => made.extra = text(value).map(Secret::new),
            other => return Err(invalid(&made.connection_id, &format!("unknown field `{other}`"))),
        }
    }
    Ok(made)
}

fn default() -> NewConnection {
    NewConnection::default()
}

/// Parses a port: a number, a number as a string, or nothing; `None` for anything else.
fn port(value: &Value) -> Option<Option<i32>> {
    match value {
        Value::Null => Some(None),
        Value::String(text) if text.is_empty() => Some(None),
        Value::String(text) => text.parse().ok().map(Some),
        value => value.as_i64().and_then(|number| i32::try_from(number).ok()).map(Some),
    }
}

fn invalid(location: &str, message: &str) -> CliError {
    CliError::input("a connection is not valid; nothing was written", vec![Fault::new(location, message)], None)
}

async fn all(daemon: &Daemon, environment: &EnvironmentName) -> Result<Vec<Connection>, CliError> {
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let list: ConnectionList =
            daemon.list(environment, routes::CONNECTIONS, &files::export_page(connections.len())).await?;
        let is_last = list.connections.is_empty();
        connections.extend(list.connections);
        if is_last || connections.len() as i64 >= list.total_entries {
            return Ok(connections);
        }
    }
}

/// Returns the text of an export.
fn text(connections: &[Connection], format: &str, serialization: &str) -> Result<String, CliError> {
    if format == "env" {
        let line = |connection: &Connection| {
            let value = if serialization == "uri" { shown(&connection.uri) } else { fields(connection).to_string() };
            format!("{}={value}\n", connection.connection_id)
        };
        return Ok(connections.iter().map(line).collect());
    }
    let entries: Map<String, Value> =
        connections.iter().map(|connection| (connection.connection_id.clone(), fields(connection))).collect();
    match format {
        "yaml" => serde_saphyr::to_string(&entries).map_err(|error| CliError::unexpected("writing YAML", error)),
        _ => Ok(files::pretty(&entries)),
    }
}

/// Returns a connection in the format of Airflow's files.
fn fields(connection: &Connection) -> Value {
    json!({
        "conn_type": connection.conn_type,
        "description": connection.description,
        "login": connection.login,
        "password": connection.password,
        "host": connection.host,
        "port": connection.port,
        "schema": connection.schema,
        "extra": connection.extra,
    })
}

fn shown(value: &Option<Secret>) -> String {
    value.as_ref().map_or_else(|| "-".to_owned(), |value| value.expose().to_owned())
}

fn details(connection: &Connection) -> String {
    let plain = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let mut lines = vec![
        ("Connection", connection.connection_id.clone()),
        ("Type", connection.conn_type.clone()),
        ("Description", plain(&connection.description)),
        ("Host", plain(&connection.host)),
        ("Port", connection.port.map_or_else(|| "-".to_owned(), |port| port.to_string())),
        ("Schema", plain(&connection.schema)),
        ("Login", plain(&connection.login)),
        ("Password", shown(&connection.password)),
        ("Extra", shown(&connection.extra)),
    ];
    lines.extend(connection.uri.as_ref().map(|uri| ("URI", uri.expose().to_owned())));
    lines.into_iter().map(|(key, value)| format!("{key:<13}{value}\n")).collect()
}

fn listing(list: &ConnectionList) -> String {
    if list.connections.is_empty() {
        return "no connections; `airflow-serverless connections add --env NAME ID --conn-uri URI` creates one"
            .to_owned();
    }
    let with_values = list.connections.iter().any(|connection| connection.uri.is_some());
    let row = |connection: &Connection| {
        let host = connection.host.clone().unwrap_or_else(|| "-".to_owned());
        let mut row = vec![connection.connection_id.clone(), connection.conn_type.clone(), host];
        if with_values {
            row.push(shown(&connection.uri));
        }
        row
    };
    let header: &[&str] = if with_values { &["ID", "TYPE", "HOST", "URI"] } else { &["ID", "TYPE", "HOST"] };
    let mut text = table(header, list.connections.iter().map(row));
    let shown = list.connections.len() as i64;
    if shown < list.total_entries {
        text.push_str(&format!(
            "\n{shown} of {} connections; `--limit` and `--offset` show others",
            list.total_entries
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exported_values_round_trip_through_import() {
        let odd = [
            "",
            " ",
            "yes",
            "1",
            "null",
            "~",
            "a: b",
            "# c",
            "a\nb\n",
            "\t",
            "\u{e4}\u{1f600}",
            "'\"\\",
            "%2F",
            "-",
            "=",
        ];
        let long = "x y ".repeat(200);
        for text in odd.into_iter().chain([long.as_str()]) {
            let (plain, secret) = (Some(text.to_owned()), Some(Secret::new(text)));
            let connection = Connection {
                connection_id: "a.b-c".to_owned(),
                conn_type: "my-Type".to_owned(),
                description: plain.clone(),
                host: plain.clone(),
                login: None,
                schema: plain,
                port: Some(80),
                password: secret,
                extra: Some(Secret::new("{\"a\":  [1, \"\u{e4}\"]}")),
                uri: None,
            };
            let expected = fields(&connection);
            let entries = Map::from_iter([(connection.connection_id.clone(), expected.clone())]);
            let yaml = serde_saphyr::to_string(&entries).expect("YAML");
            let env = format!("{}={expected}\n", connection.connection_id);
            let files = [
                serde_json::from_str(&files::pretty(&entries)).map_err(|error| error.to_string()),
                serde_saphyr::from_str(&yaml).map_err(|error| error.to_string()),
                files::parse_env(&env).map_err(|faults| format!("{faults:?}")),
            ];
            for file in files {
                let file: Value = file.expect("a file that can be read");
                let made = from_file("a.b-c".to_owned(), file["a.b-c"].clone()).expect("valid");
                let mut written = json!(made);
                written.as_object_mut().and_then(|fields| fields.remove("connection_id"));
                written["login"] = Value::Null;
                assert_eq!(written, expected, "{yaml}");
            }
        }
    }

    #[test]
    fn connections_are_read_from_uris_or_fields() {
        let made = from_file("c".to_owned(), json!("http://h")).expect("valid");
        assert_eq!(made.uri.expect("a URI").expose(), "http://h");
        let made = from_file("c".to_owned(), json!([{"conn_type": "http", "port": "80", "extra": {"a": 1}}]));
        let made = made.expect("valid");
        assert_eq!((made.port, made.extra.expect("an extra").expose()), (Some(80), "{\"a\":1}"));
        for bad in [json!(1), json!({"hots": "h"}), json!({"port": "eighty"}), json!([1, 2]), json!("{")] {
            assert!(from_file("c".to_owned(), bad.clone()).is_err(), "{bad}");
        }
    }
}
