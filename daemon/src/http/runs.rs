//! DAG runs.

use airflow_serverless_api::{
    environment::EnvironmentName,
    routes,
    run::{ClearDagRun, DagRunDetail, DagRunList, ListDagRuns, TriggerDagRun, UpdateDagRun},
    task::TaskInstanceList,
};
use axum::{Json, extract::State, http::StatusCode};

use super::{
    Services,
    etag::IfMatch,
    extract::{self, Path, Query},
    problem::Answer,
};

/// Trigger a run of a DAG
#[utoipa::path(
    post, path = routes::DAG_RUNS.template, tag = "runs", request_body = TriggerDagRun,
    params(("environment" = EnvironmentName, Path), ("dag_id" = String, Path)),
    responses((status = 201, body = DagRunDetail))
)]
pub(super) async fn trigger_dag_run(
    State(services): State<Services>,
    Path((environment, dag_id)): Path<(EnvironmentName, String)>,
    extract::Json(request): extract::Json<TriggerDagRun>,
) -> Answer<(StatusCode, Json<DagRunDetail>)> {
    let run = services.deployed(&environment).await?.trigger_dag_run(&dag_id, request).await?;
    Ok((StatusCode::CREATED, Json(run)))
}

/// List runs, newest first
#[utoipa::path(
    get, path = routes::RUNS.template, tag = "runs",
    params(("environment" = EnvironmentName, Path), ListDagRuns),
    responses((status = 200, body = DagRunList))
)]
pub(super) async fn list_dag_runs(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    Query(query): Query<ListDagRuns>,
) -> Answer<Json<DagRunList>> {
    Ok(Json(services.deployed(&environment).await?.list_dag_runs(&query).await?))
}

/// Get a run with its task instances
#[utoipa::path(
    get, path = routes::DAG_RUN.template, tag = "runs",
    params(("environment" = EnvironmentName, Path), ("dag_id" = String, Path), ("dag_run_id" = String, Path)),
    responses((status = 200, body = DagRunDetail))
)]
pub(super) async fn get_dag_run(
    State(services): State<Services>,
    Path((environment, dag_id, run_id)): Path<(EnvironmentName, String, String)>,
) -> Answer<Json<DagRunDetail>> {
    Ok(Json(services.deployed(&environment).await?.dag_run(&dag_id, &run_id).await?))
}

/// Set the state of a run and of its unfinished tasks; with `If-Match`, only if the run is unchanged
#[utoipa::path(
    patch, path = routes::DAG_RUN.template, tag = "runs",
    request_body = UpdateDagRun,
    params(
        ("environment" = EnvironmentName, Path), ("dag_id" = String, Path), ("dag_run_id" = String, Path),
        ("If-Match" = Option<String>, Header),
    ),
    responses((status = 200, body = DagRunDetail))
)]
pub(super) async fn update_dag_run(
    State(services): State<Services>,
    Path((environment, dag_id, run_id)): Path<(EnvironmentName, String, String)>,
    if_match: IfMatch,
    extract::Json(update): extract::Json<UpdateDagRun>,
) -> Answer<Json<DagRunDetail>> {
    let environment = services.deployed(&environment).await?;
    if_match.check_read(&run_id, environment.dag_run(&dag_id, &run_id)).await?;
    Ok(Json(environment.update_dag_run(&dag_id, &run_id, update).await?))
}

/// Clear the tasks of a run, or those that failed, so that they rerun
#[utoipa::path(
    post, path = routes::DAG_RUN_CLEAR.template, tag = "runs",
    request_body = ClearDagRun,
    params(("environment" = EnvironmentName, Path), ("dag_id" = String, Path), ("dag_run_id" = String, Path)),
    responses((status = 200, description = "The cleared tasks", body = TaskInstanceList))
)]
pub(super) async fn clear_dag_run(
    State(services): State<Services>,
    Path((environment, dag_id, run_id)): Path<(EnvironmentName, String, String)>,
    extract::Json(request): extract::Json<ClearDagRun>,
) -> Answer<Json<TaskInstanceList>> {
    Ok(Json(services.deployed(&environment).await?.clear_dag_run(&dag_id, &run_id, request).await?))
}
