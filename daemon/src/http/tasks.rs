//! Task instances and their logs.

use std::convert::Infallible;

use airflow_serverless_api::{
    environment::EnvironmentName,
    event::ServerSentEvent,
    routes,
    run::{ReadLogs, TaskLog},
    task::{ClearTaskInstances, ListTaskInstances, TaskInstanceList, UpdateTaskInstance},
};
use axum::{
    Json,
    extract::State,
    response::sse::{self, Sse},
};
use futures::Stream;

use super::{
    Services, events,
    extract::{self, Path, Query},
    problem::Answer,
};
use crate::{airflow::Piece, report::chain};

/// List the task instances of a run in the order in which they started
#[utoipa::path(
    get, path = routes::TASKS.template, tag = "tasks",
    params(
        ("environment" = EnvironmentName, Path), ("dag_id" = String, Path), ("dag_run_id" = String, Path),
        ListTaskInstances,
    ),
    responses((status = 200, body = TaskInstanceList))
)]
pub(super) async fn list_task_instances(
    State(services): State<Services>,
    Path((environment, dag_id, run_id)): Path<(EnvironmentName, String, String)>,
    Query(query): Query<ListTaskInstances>,
) -> Answer<Json<TaskInstanceList>> {
    Ok(Json(services.deployed(&environment).await?.list_task_instances((&dag_id, &run_id), &query).await?))
}

/// Set the state of a task; failed tasks downstream of it rerun
#[utoipa::path(
    patch, path = routes::TASK.template, tag = "tasks",
    request_body = UpdateTaskInstance,
    params(
        ("environment" = EnvironmentName, Path), ("dag_id" = String, Path), ("dag_run_id" = String, Path),
        ("task_id" = String, Path),
    ),
    responses((status = 200, description = "The tasks whose state was set", body = TaskInstanceList))
)]
pub(super) async fn update_task_instance(
    State(services): State<Services>,
    Path((environment, dag_id, run_id, task_id)): Path<(EnvironmentName, String, String, String)>,
    extract::Json(update): extract::Json<UpdateTaskInstance>,
) -> Answer<Json<TaskInstanceList>> {
    let task = (dag_id.as_str(), run_id.as_str(), task_id.as_str());
    Ok(Json(services.deployed(&environment).await?.update_task_instance(task, &update).await?))
}

/// Clear a task so that it reruns; a running task is stopped first
#[utoipa::path(
    post, path = routes::TASK_CLEAR.template, tag = "tasks",
    request_body = ClearTaskInstances,
    params(
        ("environment" = EnvironmentName, Path), ("dag_id" = String, Path), ("dag_run_id" = String, Path),
        ("task_id" = String, Path),
    ),
    responses((status = 200, description = "The cleared tasks", body = TaskInstanceList))
)]
pub(super) async fn clear_task_instances(
    State(services): State<Services>,
    Path((environment, dag_id, run_id, task_id)): Path<(EnvironmentName, String, String, String)>,
    extract::Json(request): extract::Json<ClearTaskInstances>,
) -> Answer<Json<TaskInstanceList>> {
    let task = (dag_id.as_str(), run_id.as_str(), task_id.as_str());
    Ok(Json(services.deployed(&environment).await?.clear_task_instances(task, &request).await?))
}

/// Stream the log of a task as server-sent events: `line` with the JSON of a LogLine, and finally `end`
#[utoipa::path(
    get, path = routes::TASK_LOG_STREAM.template, tag = "tasks",
    params(
        ("environment" = EnvironmentName, Path), ("dag_id" = String, Path), ("dag_run_id" = String, Path),
        ("task_id" = String, Path), ReadLogs,
    ),
    responses(
        (status = 200, body = ServerSentEvent, content_type = "text/event-stream"),
    )
)]
pub(super) async fn follow_task_log(
    State(services): State<Services>,
    Path((environment, dag_id, run_id, task_id)): Path<(EnvironmentName, String, String, String)>,
    Query(query): Query<ReadLogs>,
) -> Answer<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>> {
    let mut log = services.deployed(&environment).await?.follow_task_log((dag_id, run_id, task_id), &query).await?;
    let stream = async_stream::stream! {
        loop {
            let piece = tokio::select! {
                () = services.stop.cancelled() => return,
                piece = log.next() => piece,
            };
            match piece {
                Ok(Piece::Lines(lines)) => for (index, line) in lines {
                    if let Ok(event) = sse::Event::default().id(index.to_string()).event("line").json_data(&line) {
                        yield Ok(event);
                    }
                },
                Ok(Piece::End(end)) => {
                    if let Ok(event) = sse::Event::default().event("end").json_data(&end) {
                        yield Ok(event);
                    }
                    return;
                }
                // The response has begun, so it can only end early.
                Err(error) => return tracing::warn!(error = chain(&error), "a log cannot be followed any more"),
            }
        }
    };
    Ok(Sse::new(stream).keep_alive(events::heartbeat()))
}

/// Get the log of a task
#[utoipa::path(
    get, path = routes::TASK_LOG.template, tag = "tasks",
    params(
        ("environment" = EnvironmentName, Path), ("dag_id" = String, Path), ("dag_run_id" = String, Path),
        ("task_id" = String, Path), ReadLogs,
    ),
    responses((status = 200, body = TaskLog))
)]
pub(super) async fn get_task_log(
    State(services): State<Services>,
    Path((environment, dag_id, run_id, task_id)): Path<(EnvironmentName, String, String, String)>,
    Query(query): Query<ReadLogs>,
) -> Answer<Json<TaskLog>> {
    Ok(Json(services.deployed(&environment).await?.task_log(&dag_id, &run_id, &task_id, &query).await?))
}
