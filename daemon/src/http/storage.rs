//! Refuses changes while the daemon cannot write its files.

use std::path::Path;

use airflow_serverless_api::{home::Home, routes};
use axum::{
    extract::{Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};
use rustix::fs::{Access, access};

use super::{Services, problem::Failure};

/// Refuses changes early if a folder of the home is not writable: they would be left half done.
pub(super) async fn required(State(services): State<Services>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    // Diagnostics change nothing here and must stay available.
    if !reads
        && request.uri().path() != routes::DIAGNOSTICS.template
        && let Err(reason) = check(&services.diagnostician.home)
    {
        return Failure::not_ready(format!("{reason}; nothing was changed")).into_response();
    }
    next.run(request).await
}

/// Fails unless the daemon's data folders are writable.
pub(super) fn check(home: &Home) -> Result<(), String> {
    [&home.data, &home.cache].into_iter().try_for_each(|folder| writable(folder))
}

fn writable(folder: &Path) -> Result<(), String> {
    access(folder, Access::WRITE_OK).map_err(|error| format!("{} cannot be written: {error}", folder.display()))
}
