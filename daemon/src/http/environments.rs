//! Environments.

use airflow_serverless_api::{
    environment::{
        CreateEnvironment, DeleteEnvironment, Environment, EnvironmentChange, EnvironmentList, EnvironmentName,
        ListEnvironments, UnregisteredEnvironmentList, UpdateEnvironment,
    },
    routes,
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    Services,
    etag::IfMatch,
    extract::{self, Path, Query},
    problem::Answer,
};

/// List environments by name
#[utoipa::path(
    get, path = routes::ENVIRONMENTS.template, tag = "environments", params(ListEnvironments),
    responses(
        (status = 200, body = EnvironmentList),
    )
)]
pub(super) async fn list_environments(
    State(services): State<Services>,
    Query(query): Query<ListEnvironments>,
) -> Answer<Json<EnvironmentList>> {
    Ok(Json(services.registry.list_environments(&query).await?))
}

/// Create an environment; returns one that exists with the same configuration
#[utoipa::path(
    post, path = routes::ENVIRONMENTS.template, tag = "environments", request_body = CreateEnvironment,
    responses(
        (status = 200, description = "It exists with this configuration", body = EnvironmentChange),
        (status = 202, description = "Accepted; `Location` names the operation", body = EnvironmentChange),
    )
)]
pub(super) async fn create_environment(
    State(services): State<Services>,
    extract::Json(request): extract::Json<CreateEnvironment>,
) -> Answer<Response> {
    Ok(accepted(services.registry.create_environment(request).await?))
}

/// List environments that are deployed but not registered, by name
#[utoipa::path(
    get, path = routes::UNREGISTERED_ENVIRONMENTS.template, tag = "environments",
    responses((status = 200, body = UnregisteredEnvironmentList))
)]
pub(super) async fn list_unregistered_environments(
    State(services): State<Services>,
) -> Answer<Json<UnregisteredEnvironmentList>> {
    Ok(Json(services.registry.unregistered_environments().await?))
}

/// Register an environment that is deployed but not registered, and redeploy it
#[utoipa::path(
    post, path = routes::ADOPT.template, tag = "environments",
    params(("environment" = EnvironmentName, Path)),
    responses(
        (status = 200, description = "It is already registered", body = EnvironmentChange),
        (status = 202, description = "Accepted; `Location` names the operation", body = EnvironmentChange),
    )
)]
pub(super) async fn adopt_environment(
    State(services): State<Services>,
    Path(name): Path<EnvironmentName>,
) -> Answer<Response> {
    Ok(accepted(services.registry.adopt_environment(&name).await?))
}

/// Get an environment
#[utoipa::path(
    get, path = routes::ENVIRONMENT.template, tag = "environments",
    params(("environment" = EnvironmentName, Path)),
    responses((status = 200, body = Environment))
)]
pub(super) async fn get_environment(
    State(services): State<Services>,
    Path(name): Path<EnvironmentName>,
) -> Answer<Json<Environment>> {
    Ok(Json(services.airflow.environment(&name).await?))
}

/// Update the configuration; with `If-Match`, only if the environment is unchanged
#[utoipa::path(
    patch, path = routes::ENVIRONMENT.template, tag = "environments", request_body = UpdateEnvironment,
    params(("environment" = EnvironmentName, Path), ("If-Match" = Option<String>, Header)),
    responses(
        (status = 200, description = "It already has this configuration", body = EnvironmentChange),
        (status = 202, description = "Accepted; `Location` names the operation", body = EnvironmentChange),
    )
)]
pub(super) async fn update_environment(
    State(services): State<Services>,
    Path(name): Path<EnvironmentName>,
    if_match: IfMatch,
    extract::Json(request): extract::Json<UpdateEnvironment>,
) -> Answer<Response> {
    let is_expected = |environment: &Environment| if_match.check(&format!("environment {name}"), environment);
    Ok(accepted(services.registry.update_environment(&name, request.config, is_expected).await?))
}

/// Delete an environment; with `If-Match`, only if it is unchanged
#[utoipa::path(
    delete, path = routes::ENVIRONMENT.template, tag = "environments",
    params(
        ("environment" = EnvironmentName, Path), DeleteEnvironment, ("If-Match" = Option<String>, Header),
    ),
    responses(
        (status = 202, description = "Accepted; `Location` names the operation", body = EnvironmentChange),
    )
)]
pub(super) async fn delete_environment(
    State(services): State<Services>,
    Path(name): Path<EnvironmentName>,
    if_match: IfMatch,
    Query(query): Query<DeleteEnvironment>,
) -> Answer<Response> {
    let is_expected = |environment: &Environment| if_match.check(&format!("environment {name}"), environment);
    Ok(accepted(services.registry.delete_environment(&name, query, is_expected).await?))
}

/// Run a scheduler tick now
#[utoipa::path(
    post, path = routes::TICK.template, tag = "environments",
    params(("environment" = EnvironmentName, Path)),
    responses(
        (status = 204, description = "The tick has ended"),
    )
)]
pub(super) async fn tick_environment(
    State(services): State<Services>,
    Path(name): Path<EnvironmentName>,
) -> Answer<StatusCode> {
    services.deployed(&name).await?.tick().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn accepted(change: EnvironmentChange) -> Response {
    match &change.operation {
        None => Json(change).into_response(),
        Some(operation) => {
            let location = [(header::LOCATION, routes::OPERATION.path([&operation.id.to_string()]))];
            (StatusCode::ACCEPTED, location, Json(change)).into_response()
        }
    }
}
