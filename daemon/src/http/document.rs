//! The OpenAPI document: the descriptions of the handlers, completed with what all operations share.

use std::collections::HashSet;

use airflow_serverless_api::{
    event::Event,
    log::ContainerLine,
    problem::{MEDIA_TYPE, Problem},
    run::{LogEnd, LogLine},
    ui::{UiProgress, UiReady},
};
use axum::{
    Router,
    http::{Method, StatusCode, header},
};
use serde_json::json;
use utoipa::{
    OpenApi,
    openapi::{
        Components, ContentBuilder, Header, HeaderBuilder, OpenApi as Description, PathItem, Ref, RefOr, Response,
        ResponseBuilder, Schema,
        example::ExampleBuilder,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        schema::{ObjectBuilder, SchemaFormat, SchemaType, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use super::{
    Services, etag,
    problem_kinds::{self, Kind},
};

const TOKEN: &str = "token";
/// The media type of event streams.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// Responses that any operation can give: status, name and meaning.
const REFUSALS: &[(&str, &str, &str)] = &[
    ("401", "Unauthorized", "A request to a port without its token. The Unix socket needs none."),
    ("4XX", "Refused", "The request is at fault: see `type`, `detail` and `hint`."),
    (
        "503",
        "Overloaded",
        "Too many requests at once, or not ready: see `type`. Nothing was done; retry after `Retry-After`.",
    ),
    (
        "5XX",
        "Failed",
        "The daemon, the scheduler or the database failed or did not respond in time. After 504, a change may still be carried out: check first, or retry with the same `Idempotency-Key`.",
    ),
];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "airflowd",
        description = "Airflow without servers: environments, DAGs and runs on Modal.\n\n\
            The API is served on a Unix socket and, if `listen` in `airflowd.yaml`, `airflowd --listen` or a service \
            manager says so, on a loopback port. Requests to the port need the token that \
            `airflow-serverless daemon token` prints. Each response has an `X-Request-Id`, which also appears in the \
            daemon's log, and an `Airflow-Serverless-Version`. Errors are RFC 9457 problems with a stable `type`.\n\n\
            JSON resources have an `ETag`; with `If-None-Match`, the response is 304 if nothing has changed. Bodies may \
            have up to 1 MiB, files and imports 4 MiB.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Problem, Event, LogLine, LogEnd, ContainerLine, UiProgress, UiReady)),
    servers((url = "/", description = "The daemon that serves this document")),
    tags(
        (name = "environments", description = "Environments: one Airflow each, deployed by the daemon"),
        (name = "events", description = "Events, as a stream that can be resumed"),
        (name = "credentials", description = "Credentials for Modal's cloud, write-only"),
        (name = "operations", description = "Operations on environments, step by step"),
        (name = "dags", description = "DAG files, validated before the upload, and their DAGs"),
        (name = "watches", description = "Watched folders, whose files are uploaded on save"),
        (name = "runs", description = "DAG runs"),
        (name = "tasks", description = "Task instances of a run and their logs"),
        (name = "backfills", description = "Backfills: runs of a DAG for past dates"),
        (name = "variables", description = "Airflow's variables"),
        (name = "connections", description = "Airflow's connections"),
        (name = "pools", description = "Airflow's pools"),
        (name = "ui", description = "The Airflow UI, started on demand"),
        (name = "daemon", description = "The daemon itself"),
    )
)]
struct Document;

/// Splits off the routes from their complete description.
pub(super) fn split(routes: OpenApiRouter<Services>) -> (Router<Services>, Description) {
    let (router, described) = routes.split_for_parts();
    let mut document = Document::openapi();
    document.paths = described.paths;
    let mut components = described.components.unwrap_or_default();
    components.schemas.extend(document.components.take().unwrap_or_default().schemas);
    add_shared(&mut components);
    document.components = Some(components);
    document.security = Some(vec![SecurityRequirement::new(TOKEN, [] as [&str; 0])]);
    for path in document.paths.paths.values_mut() {
        if let Some(post) = &mut path.post
            && !is_stream(post)
        {
            post.parameters.get_or_insert_default().push(idempotency_key());
        }
        if let Some(get) = &mut path.get {
            add_etag(get);
        }
        operations(path).for_each(complete);
    }
    (router, document)
}

/// Returns the operations that change something and do not support `If-Match`.
pub(super) fn blind_to_if_match(document: &Description) -> HashSet<(Method, String)> {
    let is_blind = |operation: &Operation| {
        let mut parameters = operation.parameters.iter().flatten();
        !parameters.any(|parameter| matches!(parameter, RefOr::T(parameter) if is_if_match(parameter)))
    };
    let of = |(path, item): (&String, &PathItem)| {
        let operations = [
            (Method::PUT, &item.put),
            (Method::POST, &item.post),
            (Method::PATCH, &item.patch),
            (Method::DELETE, &item.delete),
        ];
        let blind = operations.into_iter().filter(|(_, operation)| operation.as_ref().is_some_and(is_blind));
        blind.map(|(method, _)| (method, path.clone())).collect::<Vec<_>>()
    };
    document.paths.paths.iter().flat_map(of).collect()
}

fn is_if_match(parameter: &Parameter) -> bool {
    parameter.name.eq_ignore_ascii_case(header::IF_MATCH.as_str())
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.put, &mut path.post, &mut path.patch, &mut path.delete].into_iter().flatten()
}

/// Whether the response is a stream, which cannot be replayed.
fn is_stream(operation: &Operation) -> bool {
    let is_stream = |response: &RefOr<Response>| match response {
        RefOr::T(response) => response.content.contains_key(EVENT_STREAM),
        RefOr::Ref(_) => false,
    };
    operation.responses.responses.values().any(is_stream)
}

/// The header that makes a request safe to repeat.
fn idempotency_key() -> RefOr<Parameter> {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255));
    let parameter = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .description(Some(
            "A request that is repeated with the same key within a day is carried out once and gets the same response, with `Idempotency-Replayed: true`. 409 while the first one is in progress, 422 for another request. Refused requests are not remembered",
        ))
        .schema(Some(text.pattern(Some("^[ -~]+$"))));
    parameter.build().into()
}

/// Adds the shared responses, and fills in what a handler leaves open.
fn complete(operation: &mut Operation) {
    let responses = &mut operation.responses.responses;
    for (status, name, _) in REFUSALS {
        responses.insert((*status).to_owned(), Ref::from_response_name(*name).into());
    }
    for (status, response) in responses {
        if let RefOr::T(response) = response {
            add_location(response);
            if response.description.is_empty() {
                response.description = description(status).to_owned();
            }
        }
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            limit(parameter);
            if parameter.description.is_none() {
                parameter.description = meaning(&parameter.name).map(str::to_owned);
            }
        }
    }
}

/// Returns the default description of a parameter.
fn meaning(parameter: &str) -> Option<&'static str> {
    Some(match parameter {
        "environment" => "Name of the environment",
        "dag_id" => "DAG id",
        "dag_run_id" => "Run id",
        "task_id" => "Task id",
        "backfill_id" => "Backfill id",
        "operation" => "Operation id",
        "watch_id" => "Watch id",
        "connection_id" => "Connection id",
        "key" => "Key of the variable",
        "name" => "Name of the pool",
        "filename" => "Name of the file",
        "offset" => "Number of entries to skip; default 0",
        "If-Match" => "The `ETag` of the resource when it was read, with its quotes; 412 if it has changed since",
        _ => return None,
    })
}

/// Adds `Location` to responses about created or running objects.
fn add_location(response: &mut Response) {
    if response.description.contains("`Location`") {
        let location = header(Type::String, "A path of this API");
        response.headers.insert("Location".to_owned(), location.into());
    }
}

/// Adds `ETag` to reads of JSON.
fn add_etag(get: &mut Operation) {
    if let Some(RefOr::T(response)) = get.responses.responses.get_mut("200")
        && response.content.contains_key("application/json")
    {
        let etag = header(Type::String, "For `If-None-Match`, and for `If-Match` where that is taken");
        response.headers.insert("ETag".to_owned(), etag.into());
    }
}

fn header(kind: Type, description: &str) -> Header {
    HeaderBuilder::new().schema(Some(ObjectBuilder::new().schema_type(kind))).description(Some(description)).build()
}

fn description(status: &str) -> &'static str {
    match status {
        "201" => "Created",
        "202" => "Accepted",
        "204" => "Done",
        _ => "OK",
    }
}

/// Adds constraints: path parameters are not empty, integers have the size that the daemon reads, validators are
/// quoted.
fn limit(parameter: &mut Parameter) {
    let (in_path, is_if_match) = (matches!(parameter.parameter_in, ParameterIn::Path), is_if_match(parameter));
    if let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema {
        // An absent parameter is left out of the request: no text stands for null.
        if let SchemaType::Array(types) = &mut object.schema_type {
            types.retain(|kind| *kind != Type::Null);
            if let [only] = types.as_slice() {
                object.schema_type = only.clone().into();
            }
        }
        if is_if_match {
            object.pattern = Some(etag::LIST.to_owned());
        }
        let format = object.format.as_ref().map(|format| serde_json::to_value(format).unwrap_or_default());
        match format.as_ref().and_then(|format| format.as_str()) {
            Some("int64") => {
                object.minimum.get_or_insert(i64::MIN.into());
                object.maximum.get_or_insert(i64::MAX.into());
            }
            // Numbers that cannot be negative are unsigned.
            Some("int32") if object.minimum.is_some() => {
                object.format = Some(SchemaFormat::Custom("uint32".to_owned()));
                object.maximum.get_or_insert(u32::MAX.into());
            }
            Some("int32") => {
                object.minimum = Some(i32::MIN.into());
                object.maximum.get_or_insert(i32::MAX.into());
            }
            None if in_path => {
                object.min_length.get_or_insert(1);
            }
            _ => {}
        }
    }
}

/// Adds the shared components: the authentication scheme and the error responses.
fn add_shared(components: &mut Components) {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("On a port: what `airflow-serverless daemon token` prints. On the Unix socket: nothing."));
    components.security_schemes.insert(TOKEN.to_owned(), SecurityScheme::Http(scheme.build()).into());
    for (status, name, meaning) in REFUSALS {
        components.responses.insert((*name).to_owned(), refusal(status, meaning).into());
    }
}

/// Builds a problem response with examples of all kinds that have this status.
fn refusal(status: &str, meaning: &str) -> Response {
    let fits = |kind: &&Kind| is_in(kind.status, status);
    let examples = problem_kinds::ALL.iter().filter(fits).map(|kind| {
        let problem = Problem {
            kind: format!("{}{}", Problem::NAMESPACE, kind.name),
            title: kind.title.to_owned(),
            status: kind.status.as_u16(),
            detail: "What happened this time".to_owned(),
            hint: None,
            errors: Vec::new(),
        };
        (kind.name, ExampleBuilder::new().summary(kind.title).value(Some(json!(problem))))
    });
    let content =
        ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).examples_from_iter(examples).build();
    let response = ResponseBuilder::new().description(meaning).content(MEDIA_TYPE, content);
    match status {
        "401" => response.header("WWW-Authenticate", header(Type::String, "`Bearer`")).build(),
        "503" => response.header("Retry-After", header(Type::Integer, "Seconds")).build(),
        _ => response.build(),
    }
}

/// Whether `401` or `4XX` includes this status, and no other entry names it.
fn is_in(status: StatusCode, entry: &str) -> bool {
    let is_named = REFUSALS.iter().any(|(named, ..)| *named == status.as_str());
    entry == status.as_str() || (!is_named && entry.strip_suffix("XX") == status.as_str().get(..1))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_operation_is_fully_described() {
        let (_, mut document) = split(super::super::routes());
        let tags: Vec<_> = document.tags.clone().unwrap_or_default().into_iter().map(|tag| tag.name).collect();
        let kinds: usize = document
            .components
            .as_ref()
            .expect("components")
            .responses
            .values()
            .map(|response| match response {
                RefOr::T(response) => match &response.content[MEDIA_TYPE] {
                    RefOr::T(content) => content.examples.len(),
                    RefOr::Ref(_) => 0,
                },
                RefOr::Ref(_) => 0,
            })
            .sum();
        assert_eq!(kinds, problem_kinds::ALL.len(), "each kind of problem is documented once");
        for (path, item) in &mut document.paths.paths {
            for operation in operations(item) {
                let parameters = operation.parameters.iter().flatten();
                for parameter in parameters {
                    let is_said = matches!(parameter, RefOr::T(parameter) if parameter.description.is_some());
                    assert!(is_said, "{path}: a parameter has no description");
                }
                assert!(operation.summary.is_some() && operation.operation_id.is_some(), "{path}");
                for tag in operation.tags.iter().flatten() {
                    assert!(tags.contains(tag), "{path}: tag {tag} is not described");
                }
                for (status, response) in &operation.responses.responses {
                    let is_said = !matches!(response, RefOr::T(response) if response.description.is_empty());
                    assert!(is_said, "{path}: {status} has no description");
                }
            }
        }
    }

    /// Collects all references below a value.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn openapi_references_resolve() {
        let document = json!(split(super::super::routes()).1);
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            let path = reference.strip_prefix('#').expect("a reference into the document");
            assert!(document.pointer(path).is_some(), "{reference}");
        }
    }
}
