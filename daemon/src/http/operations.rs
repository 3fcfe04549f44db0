//! Operations: long-running work.

use airflow_serverless_api::{
    operation::{FollowOperation, ListOperations, Operation, OperationList},
    routes,
};
use axum::{Json, extract::State};
use uuid::Uuid;

use super::{
    Services,
    extract::{Path, Query},
    problem::Answer,
};

/// List operations, newest first; kept for 7 days after they ended
#[utoipa::path(
    get, path = routes::OPERATIONS.template, tag = "operations", params(ListOperations),
    responses(
        (status = 200, body = OperationList),
    )
)]
pub(super) async fn list_operations(
    State(services): State<Services>,
    Query(query): Query<ListOperations>,
) -> Answer<Json<OperationList>> {
    Ok(Json(services.registry.list_operations(&query).await?))
}

/// Get an operation and its steps; can wait for a change
#[utoipa::path(
    get, path = routes::OPERATION.template, tag = "operations",
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

/// Cancel a running operation; finished steps are not undone. Returns an operation that has ended as it is
#[utoipa::path(
    post, path = routes::OPERATION_CANCEL.template, tag = "operations", params(("operation" = Uuid, Path)),
    responses((status = 200, body = Operation))
)]
pub(super) async fn cancel_operation(
    State(services): State<Services>,
    Path(id): Path<Uuid>,
) -> Answer<Json<Operation>> {
    Ok(Json(services.registry.cancel_operation(id).await?))
}
