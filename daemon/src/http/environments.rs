//! Environments.

use airflow_serverless_api::environment::{
    CreateEnvironment, Environment, EnvironmentChange, EnvironmentList, EnvironmentName, UpdateEnvironment,
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    Services,
    extract::{self, Path},
    problem::Answer,
};

/// All environments
#[utoipa::path(get, path = "/v1/environments", tag = "environments", responses((status = 200, body = EnvironmentList)))]
pub(super) async fn list_environments(State(services): State<Services>) -> Answer<Json<EnvironmentList>> {
    Ok(Json(EnvironmentList { environments: services.registry.list_environments().await? }))
}

/// Creates an environment; one that exists with the same configuration is answered as it is
#[utoipa::path(
    post, path = "/v1/environments", tag = "environments", request_body = CreateEnvironment,
    responses(
        (status = 200, description = "It exists as asked for", body = EnvironmentChange),
        (status = 202, description = "Accepted; `Location` names the operation", body = EnvironmentChange),
    )
)]
pub(super) async fn create_environment(
    State(services): State<Services>,
    extract::Json(request): extract::Json<CreateEnvironment>,
) -> Answer<Response> {
    Ok(accepted(services.registry.create_environment(request).await?))
}

/// One environment
#[utoipa::path(
    get, path = "/v1/environments/{environment}", tag = "environments",
    params(("environment" = EnvironmentName, Path)),
    responses((status = 200, body = Environment))
)]
pub(super) async fn get_environment(
    State(services): State<Services>,
    Path(name): Path<EnvironmentName>,
) -> Answer<Json<Environment>> {
    Ok(Json(services.registry.environment(&name).await?))
}

/// Applies another configuration
#[utoipa::path(
    patch, path = "/v1/environments/{environment}", tag = "environments", request_body = UpdateEnvironment,
    params(("environment" = EnvironmentName, Path)),
    responses(
        (status = 200, description = "It is as asked for already", body = EnvironmentChange),
        (status = 202, description = "Accepted; `Location` names the operation", body = EnvironmentChange),
    )
)]
pub(super) async fn update_environment(
    State(services): State<Services>,
    Path(name): Path<EnvironmentName>,
    extract::Json(request): extract::Json<UpdateEnvironment>,
) -> Answer<Response> {
    Ok(accepted(services.registry.update_environment(&name, request.config).await?))
}

fn accepted(change: EnvironmentChange) -> Response {
    match &change.operation {
        None => Json(change).into_response(),
        Some(operation) => {
            let location = [(header::LOCATION, format!("/v1/operations/{}", operation.id))];
            (StatusCode::ACCEPTED, location, Json(change)).into_response()
        }
    }
}
