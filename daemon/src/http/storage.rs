//! Changes while the daemon cannot write its files.

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

/// Refuses changes at once while a folder of the home cannot be written: they would be half done.
pub(super) async fn required(State(services): State<Services>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    // The one request that changes nothing although its method says so.
    if !reads
        && request.uri().path() != routes::DIAGNOSTICS.template
        && let Err(reason) = check(&services.diagnostician.home)
    {
        return Failure::not_ready(format!("{reason}; nothing was changed")).into_response();
    }
    next.run(request).await
}

/// Fails unless the folders with the daemon's data can be written.
pub(super) fn check(home: &Home) -> Result<(), String> {
    [&home.data, &home.cache].into_iter().try_for_each(|folder| writable(folder))
}

fn writable(folder: &Path) -> Result<(), String> {
    access(folder, Access::WRITE_OK).map_err(|error| format!("{} cannot be written: {error}", folder.display()))
}
