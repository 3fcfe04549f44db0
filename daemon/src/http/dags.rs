//! DAG files and DAGs.

use airflow_serverless_api::{
    dag::{
        Dag, DagDeletion, DagDetail, DagFileChange, DagFileDeletion, DagFileList, DeleteDag, ImportErrorList,
        ListDagFiles, ListImportErrors, PutDagFile, UpdateDag,
    },
    environment::EnvironmentName,
    routes,
};
use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::{
    Services,
    etag::{self, IfMatch},
    extract::{self, Body, Path, Query},
    problem::Answer,
};
use crate::airflow::DagFilePath;

/// List DAG files with their DAGs and import errors
#[utoipa::path(
    get, path = routes::DAG_FILES.template, tag = "dags",
    params(("environment" = EnvironmentName, Path), ListDagFiles),
    responses((status = 200, body = DagFileList))
)]
pub(super) async fn list_dag_files(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    Query(query): Query<ListDagFiles>,
) -> Answer<Json<DagFileList>> {
    Ok(Json(services.deployed(&environment).await?.list_dag_files(&query).await?))
}

/// Validate and upload a DAG file, or a plugin (`plugins%2F` and its name); with `If-Match`, only if it is unchanged
#[utoipa::path(
    put, path = routes::DAG_FILE.template, tag = "dags",
    params(("environment" = EnvironmentName, Path), ("filename" = String, Path, pattern = "^(plugins/)?[A-Za-z0-9_-][A-Za-z0-9_.-]*[.]py$", max_length = 208), PutDagFile, ("If-Match" = Option<String>, Header)),
    request_body(content = String, content_type = "text/x-python"),
    responses((status = 200, body = DagFileChange))
)]
pub(super) async fn put_dag_file(
    State(services): State<Services>,
    Path((environment, filename)): Path<(EnvironmentName, String)>,
    Query(query): Query<PutDagFile>,
    if_match: IfMatch,
    Body(content): Body,
) -> Answer<Json<DagFileChange>> {
    let path = DagFilePath::for_upload(&filename)?;
    let is_expected = if_match.of_content(&filename);
    let environment = services.deployed(&environment).await?;
    Ok(Json(environment.put_dag_file(path, content.into(), query.mode, is_expected).await?))
}

/// Download a DAG file or a plugin
#[utoipa::path(
    get, path = routes::DAG_FILE.template, tag = "dags",
    params(("environment" = EnvironmentName, Path), ("filename" = String, Path, description = "File name as in `GET …/dags`; write a slash as `%2F`", pattern = "[.]py$", max_length = 1000)),
    responses(
        (status = 200, body = String, content_type = "text/x-python"),
    )
)]
pub(super) async fn get_dag_file(
    State(services): State<Services>,
    Path((environment, filename)): Path<(EnvironmentName, String)>,
) -> Answer<Response> {
    let path = DagFilePath::new(&filename)?;
    let content = services.deployed(&environment).await?.dag_file(path).await?;
    let headers = [(header::CONTENT_TYPE, "text/x-python".to_owned()), (header::ETAG, etag::of_bytes(&content))];
    Ok((headers, content).into_response())
}

/// Delete a DAG file or a plugin and deactivate its DAGs; with `If-Match`, only if it is unchanged
#[utoipa::path(
    delete, path = routes::DAG_FILE.template, tag = "dags",
    params(("environment" = EnvironmentName, Path), ("filename" = String, Path, description = "File name as in `GET …/dags`; write a slash as `%2F`", pattern = "[.]py$", max_length = 1000), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = DagFileDeletion))
)]
pub(super) async fn delete_dag_file(
    State(services): State<Services>,
    Path((environment, filename)): Path<(EnvironmentName, String)>,
    if_match: IfMatch,
) -> Answer<Json<DagFileDeletion>> {
    let path = DagFilePath::new(&filename)?;
    let is_expected = if_match.of_content(&filename);
    Ok(Json(services.deployed(&environment).await?.delete_dag_file(path, is_expected).await?))
}

/// List import errors by file
#[utoipa::path(
    get, path = routes::IMPORT_ERRORS.template, tag = "dags",
    params(("environment" = EnvironmentName, Path), ListImportErrors),
    responses((status = 200, body = ImportErrorList))
)]
pub(super) async fn list_import_errors(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    Query(query): Query<ListImportErrors>,
) -> Answer<Json<ImportErrorList>> {
    Ok(Json(services.deployed(&environment).await?.list_import_errors(&query).await?))
}

/// Get a DAG with its tasks
#[utoipa::path(
    get, path = routes::DAG.template, tag = "dags",
    params(("environment" = EnvironmentName, Path), ("dag_id" = String, Path)),
    responses((status = 200, body = DagDetail))
)]
pub(super) async fn get_dag(
    State(services): State<Services>,
    Path((environment, dag_id)): Path<(EnvironmentName, String)>,
) -> Answer<Json<DagDetail>> {
    Ok(Json(services.deployed(&environment).await?.dag(&dag_id).await?))
}

/// Pause or unpause a DAG; with `If-Match`, only if it is unchanged
#[utoipa::path(
    patch, path = routes::DAG.template, tag = "dags", request_body = UpdateDag,
    params(("environment" = EnvironmentName, Path), ("dag_id" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = Dag))
)]
pub(super) async fn update_dag(
    State(services): State<Services>,
    Path((environment, dag_id)): Path<(EnvironmentName, String)>,
    if_match: IfMatch,
    extract::Json(update): extract::Json<UpdateDag>,
) -> Answer<Json<Dag>> {
    let environment = services.deployed(&environment).await?;
    if_match.check_read(&dag_id, environment.dag(&dag_id)).await?;
    Ok(Json(environment.update_dag(&dag_id, update).await?))
}

/// Delete the file of a DAG and deactivate the DAG; with `If-Match`, only if the DAG is unchanged
#[utoipa::path(
    delete, path = routes::DAG.template, tag = "dags",
    params(("environment" = EnvironmentName, Path), ("dag_id" = String, Path), DeleteDag, ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = DagDeletion))
)]
pub(super) async fn delete_dag(
    State(services): State<Services>,
    Path((environment, dag_id)): Path<(EnvironmentName, String)>,
    Query(query): Query<DeleteDag>,
    if_match: IfMatch,
) -> Answer<Json<DagDeletion>> {
    let environment = services.deployed(&environment).await?;
    if_match.check_read(&dag_id, environment.dag(&dag_id)).await?;
    Ok(Json(environment.delete_dag(&dag_id, query.force).await?))
}
