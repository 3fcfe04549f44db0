//! The event stream.

use std::{convert::Infallible, time::Duration};

use airflow_serverless_api::{
    event::{Event, FollowEvents, ServerSentEvent},
    routes,
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode},
    response::sse::{self, KeepAlive, Sse},
};
use futures::Stream;
use serde::Serialize;

use super::{
    Services, etag,
    extract::Query,
    problem::{Answer, Failure},
};

/// Pause after which a comment is sent, so that both sides notice a broken connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Stream events as server-sent events with increasing ids; `Last-Event-ID` resumes the stream
#[utoipa::path(
    get, path = routes::EVENTS.template, tag = "events",
    params(
        FollowEvents,
        ("Last-Event-ID" = Option<i64>, Header, description = "Start after this event", minimum = 0),
    ),
    responses(
        (status = 200, description = "Events, each with the JSON of an Event as its data; `failed` with a Problem if no more can be read", body = ServerSentEvent,
         content_type = "text/event-stream"),
    )
)]
pub(super) async fn follow_events(
    State(services): State<Services>,
    headers: HeaderMap,
    Query(query): Query<FollowEvents>,
) -> Answer<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>> {
    let events = services.base.events.clone();
    let after = match last_event_id(&headers)?.or(query.after) {
        Some(id) => id,
        None => events.newest().await?,
    };
    let stream = async_stream::stream! {
        let (mut after, mut changes) = (after, events.changes());
        loop {
            changes.borrow_and_update();
            let found = match events.after(after, query.environment.as_ref()).await {
                Ok(found) => found,
                Err(error) => {
                    yield Ok(failed(Failure::from(error)));
                    return;
                }
            };
            let is_all = found.is_empty();
            for event in found {
                after = event.id;
                let message = sse::Event::default().id(event.id.to_string()).event(name(&event));
                if let Ok(message) = message.json_data(&event) {
                    yield Ok(message);
                }
            }
            if is_all {
                if query.follow == Some(false) {
                    return;
                }
                tokio::select! {
                    () = services.stop.cancelled() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
            }
        }
    };
    Ok(Sse::new(stream).keep_alive(heartbeat()))
}

/// Builds a message of a stream.
pub(super) fn message(name: &str, data: &impl Serialize) -> sse::Event {
    // All message types serialize without errors.
    sse::Event::default().event(name).json_data(data).unwrap_or_default()
}

/// Builds the last message of a failed stream: the response has begun, so its status cannot report the failure.
pub(super) fn failed(failure: Failure) -> sse::Event {
    message("failed", failure.problem())
}

pub(super) fn heartbeat() -> KeepAlive {
    KeepAlive::new().interval(HEARTBEAT).text("heartbeat")
}

/// Returns the `type` of the event, for `addEventListener`.
fn name(event: &Event) -> String {
    serde_json::to_value(event.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default()
}

fn last_event_id(headers: &HeaderMap) -> Answer<Option<i64>> {
    let Some(value) = etag::one_value(headers, HeaderName::from_static("last-event-id"))? else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|id| *id >= 0);
    id.map(Some).ok_or_else(no_id)
}

fn no_id() -> Failure {
    Failure::invalid_request(StatusCode::BAD_REQUEST, "Last-Event-ID is not the id of an event".to_owned())
}
