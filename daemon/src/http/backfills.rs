//! Backfills.

use airflow_serverless_api::{
    backfill::{BackfillAction, BackfillDetail, BackfillList, CreateBackfill, DryRunBackfillList, ListBackfills},
    environment::EnvironmentName,
    routes,
};
use axum::{Json, extract::State, http::StatusCode};

use super::{
    Services,
    extract::{self, Path, Query},
    problem::Answer,
};

/// List backfills, newest first
#[utoipa::path(
    get, path = routes::BACKFILLS.template, tag = "backfills",
    params(("environment" = EnvironmentName, Path), ListBackfills),
    responses((status = 200, body = BackfillList))
)]
pub(super) async fn list_backfills(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    Query(query): Query<ListBackfills>,
) -> Answer<Json<BackfillList>> {
    Ok(Json(services.deployed(&environment).await?.list_backfills(&query).await?))
}

/// Create a backfill: queue runs of a DAG for past dates
#[utoipa::path(
    post, path = routes::BACKFILLS.template, tag = "backfills", request_body = CreateBackfill,
    params(("environment" = EnvironmentName, Path)),
    responses((status = 201, body = BackfillDetail))
)]
pub(super) async fn create_backfill(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    extract::Json(request): extract::Json<CreateBackfill>,
) -> Answer<(StatusCode, Json<BackfillDetail>)> {
    let backfill = services.deployed(&environment).await?.create_backfill(&request).await?;
    Ok((StatusCode::CREATED, Json(backfill)))
}

/// List the runs that a backfill would create
#[utoipa::path(
    post, path = routes::BACKFILLS_DRY_RUN.template, tag = "backfills", request_body = CreateBackfill,
    params(("environment" = EnvironmentName, Path)),
    responses((status = 200, body = DryRunBackfillList))
)]
pub(super) async fn dry_run_backfill(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    extract::Json(request): extract::Json<CreateBackfill>,
) -> Answer<Json<DryRunBackfillList>> {
    Ok(Json(services.deployed(&environment).await?.dry_run_backfill(&request).await?))
}

/// Get a backfill with its dates and runs
#[utoipa::path(
    get, path = routes::BACKFILL.template, tag = "backfills",
    params(("environment" = EnvironmentName, Path), ("backfill_id" = i64, Path)),
    responses((status = 200, body = BackfillDetail))
)]
pub(super) async fn get_backfill(
    State(services): State<Services>,
    Path((environment, id)): Path<(EnvironmentName, i64)>,
) -> Answer<Json<BackfillDetail>> {
    Ok(Json(services.deployed(&environment).await?.backfill(id).await?))
}

/// Pause a backfill: start no more of its queued runs
#[utoipa::path(
    put, path = routes::BACKFILL_PAUSE.template, tag = "backfills",
    params(("environment" = EnvironmentName, Path), ("backfill_id" = i64, Path)),
    responses((status = 200, body = BackfillDetail))
)]
pub(super) async fn pause_backfill(
    State(services): State<Services>,
    Path((environment, id)): Path<(EnvironmentName, i64)>,
) -> Answer<Json<BackfillDetail>> {
    Ok(Json(services.deployed(&environment).await?.change_backfill(id, BackfillAction::Pause).await?))
}

/// Unpause a backfill
#[utoipa::path(
    put, path = routes::BACKFILL_UNPAUSE.template, tag = "backfills",
    params(("environment" = EnvironmentName, Path), ("backfill_id" = i64, Path)),
    responses((status = 200, body = BackfillDetail))
)]
pub(super) async fn unpause_backfill(
    State(services): State<Services>,
    Path((environment, id)): Path<(EnvironmentName, i64)>,
) -> Answer<Json<BackfillDetail>> {
    Ok(Json(services.deployed(&environment).await?.change_backfill(id, BackfillAction::Unpause).await?))
}

/// Cancel a backfill: its queued runs fail, running ones continue
#[utoipa::path(
    put, path = routes::BACKFILL_CANCEL.template, tag = "backfills",
    params(("environment" = EnvironmentName, Path), ("backfill_id" = i64, Path)),
    responses((status = 200, body = BackfillDetail))
)]
pub(super) async fn cancel_backfill(
    State(services): State<Services>,
    Path((environment, id)): Path<(EnvironmentName, i64)>,
) -> Answer<Json<BackfillDetail>> {
    Ok(Json(services.deployed(&environment).await?.change_backfill(id, BackfillAction::Cancel).await?))
}
