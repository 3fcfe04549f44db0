//! Long work.

use airflow_serverless_api::operation::{FollowOperation, Operation};
use axum::{Json, extract::State};
use uuid::Uuid;

use super::{
    Services,
    extract::{Path, Query},
    problem::Answer,
};

/// An operation and its steps; waits for news if asked to
#[utoipa::path(
    get, path = "/v1/operations/{operation}", tag = "operations",
    params(("operation" = Uuid, Path), FollowOperation),
    responses((status = 200, body = Operation))
)]
pub(super) async fn get_operation(
    State(services): State<Services>,
    Path(id): Path<Uuid>,
    Query(follow): Query<FollowOperation>,
) -> Answer<Json<Operation>> {
    Ok(Json(services.registry.operation(id, &follow).await?))
}
