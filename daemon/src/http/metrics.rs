//! Metrics for Prometheus: counts requests and renders all metrics.

use std::time::Instant;

use airflow_serverless_api::{environment::ListEnvironments, page::Page, routes};
use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    Services,
    problem::{Answer, Failure},
};
use crate::metrics::MEDIA_TYPE;

/// Counts each request under its route.
pub(super) async fn count(State(services): State<Services>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    // Unknown methods could be arbitrary strings.
    let is_known =
        [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::PATCH, Method::DELETE].contains(&method);
    let method = if is_known { method.as_str() } else { "other" };
    services.metrics.request(method, route, response.status().as_u16(), begun.elapsed());
    response
}

/// Get metrics of the daemon as OpenMetrics text for Prometheus
#[utoipa::path(
    get, path = routes::METRICS.template, tag = "daemon",
    responses(
        (status = 200, body = String, content_type = "application/openmetrics-text"),
    )
)]
pub(super) async fn get_metrics(State(services): State<Services>) -> Answer<Response> {
    let all = ListEnvironments { limit: Some(Page::LARGEST_LIMIT), ..ListEnvironments::default() };
    let environments = services.registry.list_environments(&all).await?.environments;
    let text = services.metrics.text(&environments).map_err(|error| Failure::not_ready(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}
