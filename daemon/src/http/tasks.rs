//! Task instances and their logs.

use airflow_serverless_api::{
    environment::EnvironmentName,
    run::{ReadLogs, TaskLog},
    task::{ClearTaskInstances, ListTaskInstances, TaskInstanceList, UpdateTaskInstance},
};
use axum::{Json, extract::State};

use super::{
    Services,
    extract::{self, Path, Query},
    problem::Answer,
};

/// Task instances of a run, in the order in which they started
#[utoipa::path(
    get, path = "/v1/environments/{environment}/dags/{dag_id}/runs/{dag_run_id}/tasks", tag = "tasks",
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
    Ok(Json(services.airflow.list_task_instances(&environment, (&dag_id, &run_id), &query).await?))
}

/// Gives a task another state; failed tasks downstream of it run again
#[utoipa::path(
    patch, path = "/v1/environments/{environment}/dags/{dag_id}/runs/{dag_run_id}/tasks/{task_id}", tag = "tasks",
    request_body = UpdateTaskInstance,
    params(
        ("environment" = EnvironmentName, Path), ("dag_id" = String, Path), ("dag_run_id" = String, Path),
        ("task_id" = String, Path),
    ),
    responses((status = 200, description = "The tasks that have the state now", body = TaskInstanceList))
)]
pub(super) async fn update_task_instance(
    State(services): State<Services>,
    Path((environment, dag_id, run_id, task_id)): Path<(EnvironmentName, String, String, String)>,
    extract::Json(update): extract::Json<UpdateTaskInstance>,
) -> Answer<Json<TaskInstanceList>> {
    let task = (dag_id.as_str(), run_id.as_str(), task_id.as_str());
    Ok(Json(services.airflow.update_task_instance(&environment, task, &update).await?))
}

/// Lets a task run again; one that runs is stopped first
#[utoipa::path(
    post, path = "/v1/environments/{environment}/dags/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/clear", tag = "tasks",
    request_body = ClearTaskInstances,
    params(
        ("environment" = EnvironmentName, Path), ("dag_id" = String, Path), ("dag_run_id" = String, Path),
        ("task_id" = String, Path),
    ),
    responses((status = 200, description = "The tasks that will run again", body = TaskInstanceList))
)]
pub(super) async fn clear_task_instances(
    State(services): State<Services>,
    Path((environment, dag_id, run_id, task_id)): Path<(EnvironmentName, String, String, String)>,
    extract::Json(request): extract::Json<ClearTaskInstances>,
) -> Answer<Json<TaskInstanceList>> {
    let task = (dag_id.as_str(), run_id.as_str(), task_id.as_str());
    Ok(Json(services.airflow.clear_task_instances(&environment, task, &request).await?))
}

/// The log of a task
#[utoipa::path(
    get, path = "/v1/environments/{environment}/dags/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/logs", tag = "tasks",
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
    Ok(Json(services.airflow.task_log(&environment, &dag_id, &run_id, &task_id, &query).await?))
}
