//! `operations` and `events`: the daemon's work and its events.

use airflow_serverless_api::{
    event::{Event, FollowEvents},
    operation::{ListOperations, Operation, OperationList, StepState},
};

use super::Outcome;
use crate::{
    cli::{Events, Operations},
    error::ExitStatus,
    follow,
    printer::{Printer, date, table},
    session,
};

pub async fn run(command: Operations, printer: &Printer) -> Outcome {
    let daemon = session::connect(printer).await?;
    match command {
        Operations::List { environment, state, page } => {
            let query = ListOperations { environment, state, limit: Some(page.limit), offset: Some(page.offset) };
            printer.result(&daemon.list_operations(&query).await?, listing);
        }
        Operations::Show { id } => printer.result(&daemon.get_operation(id).await?, details),
        Operations::Cancel { id } => printer.result(&daemon.cancel_operation(id).await?, details),
        Operations::Wait { id } => {
            let operation = follow::operation(&daemon, daemon.get_operation(id).await?, printer).await?;
            printer.result(&operation, details);
            return Ok(follow::status(&operation));
        }
    }
    Ok(ExitStatus::Success)
}

/// Prints events as they happen, until interrupted or the daemon stops.
pub async fn events(arguments: Events, printer: &Printer) -> Outcome {
    let daemon = session::connect(printer).await?;
    let query =
        FollowEvents { environment: arguments.environment, after: arguments.after, follow: Some(!arguments.no_follow) };
    daemon.follow_events(&query, |event| printer.line(event, describe)).await?;
    Ok(ExitStatus::Success)
}

fn describe(event: &Event) -> String {
    let kind = word(&event.kind);
    let parts = event.data.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let parts: Vec<_> = parts.map(|(key, value)| format!("{key}={}", plain(value))).collect();
    format!("{}  {}  {kind}  {}", date(Some(event.created_at)), event.environment, parts.join(" "))
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(
        || value.to_string(),
        |text| if text.contains(' ') { format!("{text:?}") } else { text.to_owned() },
    )
}

/// Returns the API's name of a state or kind.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn listing(list: &OperationList) -> String {
    if list.operations.is_empty() {
        return "no operations".to_owned();
    }
    let row = |operation: &Operation| {
        vec![
            operation.id.to_string(),
            word(&operation.kind),
            operation.environment.to_string(),
            word(&operation.state),
            date(Some(operation.created_at)),
        ]
    };
    let mut text = table(&["ID", "KIND", "ENVIRONMENT", "STATE", "CREATED"], list.operations.iter().map(row));
    let shown = list.operations.len() as i64;
    if shown < list.total_entries {
        text.push_str(&format!("\n{shown} of {} operations; `--limit` and `--offset` show others", list.total_entries));
    }
    text
}

fn details(operation: &Operation) -> String {
    let mut text = format!("{} of {}: {}", word(&operation.kind), operation.environment, word(&operation.state));
    if let Some(error) = &operation.error {
        text.push_str(&format!(" ({error})"));
    }
    text.push('\n');
    for step in operation.steps.iter().filter(|step| step.state != StepState::Pending) {
        text.push_str(&format!("  {}\n", follow::describe(step)));
    }
    text
}
