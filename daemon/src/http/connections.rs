//! Connections.

use airflow_serverless_api::{
    connection::{Connection, ConnectionList, PutConnections},
    environment::EnvironmentName,
    page::{Page, ShowOne, Written},
    routes,
};
use axum::{Json, extract::State, http::StatusCode};

use super::{
    Services,
    extract::{self, Path, Query},
    problem::Answer,
};

/// List connections by id, without sensitive values unless requested
#[utoipa::path(
    get, path = routes::CONNECTIONS.template, tag = "connections",
    params(("environment" = EnvironmentName, Path), Page),
    responses((status = 200, body = ConnectionList))
)]
pub(super) async fn list_connections(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    Query(page): Query<Page>,
) -> Answer<Json<ConnectionList>> {
    Ok(Json(services.deployed(&environment).await?.list_connections(&page).await?))
}

/// Create or replace connections: all or none
#[utoipa::path(
    post, path = routes::CONNECTIONS.template, tag = "connections", request_body = PutConnections,
    params(("environment" = EnvironmentName, Path)),
    responses((status = 200, body = Written))
)]
pub(super) async fn put_connections(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    extract::Json(request): extract::Json<PutConnections>,
) -> Answer<Json<Written>> {
    Ok(Json(services.deployed(&environment).await?.put_connections(&request).await?))
}

/// Get a connection
#[utoipa::path(
    get, path = routes::CONNECTION.template, tag = "connections",
    params(("environment" = EnvironmentName, Path), ("connection_id" = String, Path), ShowOne),
    responses((status = 200, body = Connection))
)]
pub(super) async fn get_connection(
    State(services): State<Services>,
    Path((environment, connection_id)): Path<(EnvironmentName, String)>,
    Query(show): Query<ShowOne>,
) -> Answer<Json<Connection>> {
    Ok(Json(services.deployed(&environment).await?.connection(&connection_id, show).await?))
}

/// Delete a connection
#[utoipa::path(
    delete, path = routes::CONNECTION.template, tag = "connections",
    params(("environment" = EnvironmentName, Path), ("connection_id" = String, Path)),
    responses((status = 204))
)]
pub(super) async fn delete_connection(
    State(services): State<Services>,
    Path((environment, connection_id)): Path<(EnvironmentName, String)>,
) -> Answer<StatusCode> {
    services.deployed(&environment).await?.delete_connection(&connection_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
