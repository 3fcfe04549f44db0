//! Explains failed requests whose environment is being deleted, or is gone by now.

use airflow_serverless_api::environment::EnvironmentName;
use axum::{
    extract::{RawPathParams, Request, State, rejection::RawPathParamsRejection},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Services, problem::Failure};
use crate::error::Error;

/// Turns a server error into 404 or 409 if the environment was deleted during the request.
pub(super) async fn explain(
    State(services): State<Services>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let name = parameters.ok().and_then(|parameters| {
        let (_, name) = parameters.iter().find(|(key, _)| *key == "environment")?;
        name.parse::<EnvironmentName>().ok()
    });
    let response = next.run(request).await;
    if response.status().is_server_error()
        && let Some(name) = name
        && let Err(error @ (Error::EnvironmentNotFound(_) | Error::EnvironmentDeleting(_))) =
            services.registry.wanted_environment(&name).await
    {
        return Failure::from(error).into_response();
    }
    response
}
