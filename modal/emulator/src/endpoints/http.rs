//! HTTP requests: the body is streamed to the app, and the response to the client.

use std::{io, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, StatusCode, header},
    response::Response,
};
use futures::{StreamExt, TryStreamExt};
use modal_proto::asgi;

use super::{
    headers,
    refusal::Refusal,
    request::{AppSender, WebCall},
};

/// The SDK drops a request whose first message takes 5 s; a body may begin later than that.
const FIRST_MESSAGE: Duration = Duration::from_secs(1);

/// The most bytes of a body in one message.
const PIECE_BYTES: usize = 1 << 20;

/// Headers about the connection between the app and its server, which is not the client's connection.
const HOP_HEADERS: [HeaderName; 2] = [header::CONNECTION, HeaderName::from_static("keep-alive")];

/// Sends a request to the app and its response back.
pub async fn answer(mut call: WebCall, body: Body) -> Result<Response, Refusal> {
    call.send_with(|app| send_body(app, body));
    let start = loop {
        match call.next().await {
            Some(asgi::Type::HttpResponseStart(start)) => break start,
            Some(_) => {}
            None => return Err(call.failure().await),
        }
    };
    let Some(status) = u16::try_from(start.status).ok().and_then(|status| StatusCode::from_u16(status).ok()) else {
        return Err(Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the app answered with status {}", start.status),
        ));
    };
    let mut response = Response::new(Body::from_stream(receive_body(call)));
    *response.status_mut() = status;
    *response.headers_mut() = headers(&start.headers);
    for name in HOP_HEADERS {
        response.headers_mut().remove(name);
    }
    Ok(response)
}

async fn send_body(app: AppSender, body: Body) {
    let message = |body, more_body| asgi::Type::HttpRequest(asgi::HttpRequest { body, more_body });
    let mut pieces = body.into_data_stream();
    let mut first = true;
    loop {
        let piece = match tokio::time::timeout(FIRST_MESSAGE, pieces.next()).await {
            Ok(piece) => piece,
            Err(_) => {
                if std::mem::take(&mut first) {
                    app.send(message(Default::default(), true)).await;
                }
                pieces.next().await
            }
        };
        first = false;
        match piece {
            Some(Ok(mut piece)) => {
                while !piece.is_empty() {
                    let rest = piece.split_off(PIECE_BYTES.min(piece.len()));
                    app.send(message(piece, true)).await;
                    piece = rest;
                }
            }
            None => return app.send(message(Default::default(), false)).await,
            // If only the client's half of the connection has ended, nothing else shows that.
            Some(Err(_)) => return app.cut(),
        }
    }
}

fn receive_body(mut call: WebCall) -> impl futures::Stream<Item = io::Result<bytes::Bytes>> {
    async_stream::try_stream! {
        loop {
            match call.next().await {
                Some(asgi::Type::HttpResponseBody(part)) => {
                    yield part.body;
                    if !part.more_body {
                        break;
                    }
                }
                Some(_) => {}
                // An error, so that it does not look like the end of a complete response.
                None => Err(io::Error::other("the app ended in the middle of its answer"))?,
            }
        }
    }
    .try_filter(|part| std::future::ready(!part.is_empty()))
}
