//! Backfills.

use airflow_serverless_api::{
    backfill::{BackfillAction, BackfillDetail, BackfillList, CreateBackfill, DryRunBackfillList, ListBackfills},
    environment::EnvironmentName,
};
use axum::{Json, extract::State, http::StatusCode};

use super::{
    Services,
    extract::{self, Path, Query},
    problem::Answer,
};

/// List backfills, newest first
#[utoipa::path(
    get, path = "/v1/environments/{environment}/backfills", tag = "backfills",
    params(("environment" = EnvironmentName, Path), ListBackfills),
    responses((status = 200, body = BackfillList))
)]
pub(super) async fn list_backfills(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    Query(query): Query<ListBackfills>,
) -> Answer<Json<BackfillList>> {
    Ok(Json(services.airflow.list_backfills(&environment, &query).await?))
}

/// Create a backfill: queue runs of a DAG for past dates
#[utoipa::path(
    post, path = "/v1/environments/{environment}/backfills", tag = "backfills", request_body = CreateBackfill,
    params(("environment" = EnvironmentName, Path)),
    responses((status = 201, body = BackfillDetail))
)]
pub(super) async fn create_backfill(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    extract::Json(request): extract::Json<CreateBackfill>,
) -> Answer<(StatusCode, Json<BackfillDetail>)> {
    let backfill = services.airflow.create_backfill(&environment, &request).await?;
    Ok((StatusCode::CREATED, Json(backfill)))
}

/// List the runs that a backfill would create
#[utoipa::path(
    post, path = "/v1/environments/{environment}/backfills/dry_run", tag = "backfills", request_body = CreateBackfill,
    params(("environment" = EnvironmentName, Path)),
    responses((status = 200, body = DryRunBackfillList))
)]
pub(super) async fn dry_run_backfill(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    extract::Json(request): extract::Json<CreateBackfill>,
) -> Answer<Json<DryRunBackfillList>> {
    Ok(Json(services.airflow.dry_run_backfill(&environment, &request).await?))
}

/// Get a backfill with its dates and runs
#[utoipa::path(
    get, path = "/v1/environments/{environment}/backfills/{backfill_id}", tag = "backfills",
    params(("environment" = EnvironmentName, Path), ("backfill_id" = i64, Path)),
    responses((status = 200, body = BackfillDetail))
)]
pub(super) async fn get_backfill(
    State(services): State<Services>,
    Path((environment, id)): Path<(EnvironmentName, i64)>,
) -> Answer<Json<BackfillDetail>> {
    Ok(Json(services.airflow.backfill(&environment, id).await?))
}

/// Pause a backfill: start no more of its queued runs
#[utoipa::path(
    put, path = "/v1/environments/{environment}/backfills/{backfill_id}/pause", tag = "backfills",
    params(("environment" = EnvironmentName, Path), ("backfill_id" = i64, Path)),
    responses((status = 200, body = BackfillDetail))
)]
pub(super) async fn pause_backfill(
    State(services): State<Services>,
    Path((environment, id)): Path<(EnvironmentName, i64)>,
) -> Answer<Json<BackfillDetail>> {
    Ok(Json(services.airflow.change_backfill(&environment, id, BackfillAction::Pause).await?))
}

/// Unpause a backfill
#[utoipa::path(
    put, path = "/v1/environments/{environment}/backfills/{backfill_id}/unpause", tag = "backfills",
    params(("environment" = EnvironmentName, Path), ("backfill_id" = i64, Path)),
    responses((status = 200, body = BackfillDetail))
)]
pub(super) async fn unpause_backfill(
    State(services): State<Services>,
    Path((environment, id)): Path<(EnvironmentName, i64)>,
) -> Answer<Json<BackfillDetail>> {
    Ok(Json(services.airflow.change_backfill(&environment, id, BackfillAction::Unpause).await?))
}

/// Cancel a backfill: its queued runs fail, running ones continue
#[utoipa::path(
    put, path = "/v1/environments/{environment}/backfills/{backfill_id}/cancel", tag = "backfills",
    params(("environment" = EnvironmentName, Path), ("backfill_id" = i64, Path)),
    responses((status = 200, body = BackfillDetail))
)]
pub(super) async fn cancel_backfill(
    State(services): State<Services>,
    Path((environment, id)): Path<(EnvironmentName, i64)>,
) -> Answer<Json<BackfillDetail>> {
    Ok(Json(services.airflow.change_backfill(&environment, id, BackfillAction::Cancel).await?))
}
