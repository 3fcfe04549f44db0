//! WebSockets: messages in both directions until one side ends them.

use axum::{
    extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use modal_proto::{
    asgi::{self, websocket_receive, websocket_send},
    generic_result::GenericStatus,
};

use super::{
    headers,
    refusal::Refusal,
    request::{AppSender, WebCall},
};

/// The most bytes of one message.
const MESSAGE_BYTES: usize = 64 << 20;

/// Close codes: a normal end, none given, a broken connection, and a failure of the app.
const NORMAL: u16 = 1000;
const NONE_GIVEN: u32 = 1005;
const BROKEN: u32 = 1006;
const APP_FAILED: u16 = 1011;

/// The subprotocols that a client offers.
pub fn subprotocols(headers: &HeaderMap) -> Vec<String> {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offers.flat_map(|offer| offer.split(',')).map(|name| name.trim().to_owned()).collect()
}

/// Asks the app whether it accepts the connection, and opens it if so.
pub async fn answer(mut call: WebCall, upgrade: WebSocketUpgrade) -> Result<Response, Refusal> {
    let (app_sender, mut connected) = tokio::sync::oneshot::channel::<SplitStream<WebSocket>>();
    call.send_with(|app| async move {
        app.send(asgi::Type::WebsocketConnect(asgi::WebsocketConnect {})).await;
        if let Ok(messages) = (&mut connected).await {
            send_messages(app, messages).await;
        }
    });
    let accepted = loop {
        match call.next().await {
            Some(asgi::Type::WebsocketAccept(accepted)) => break accepted,
            Some(asgi::Type::WebsocketClose(_)) => {
                return Err(Refusal::new(StatusCode::FORBIDDEN, "the app refused the connection"));
            }
            Some(_) => {}
            None => return Err(call.failure().await),
        }
    };
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES).max_frame_size(MESSAGE_BYTES);
    let upgrade = match accepted.subprotocol {
        Some(name) => upgrade.protocols([name]),
        None => upgrade,
    };
    let mut response = upgrade.on_upgrade(move |socket| async move {
        let (sink, messages) = socket.split();
        // If the request has ended meanwhile, nobody receives them.
        let _ = app_sender.send(messages);
        receive_messages(call, sink).await;
    });
    response.headers_mut().extend(headers(&accepted.headers));
    Ok(response)
}

/// The client's messages, to the app.
async fn send_messages(app: AppSender, mut messages: SplitStream<WebSocket>) {
    let receive = |content| asgi::Type::WebsocketReceive(asgi::WebsocketReceive { content: Some(content) });
    let code = loop {
        match messages.next().await {
            Some(Ok(Message::Text(text))) => {
                app.send(receive(websocket_receive::Content::Text(text.to_string()))).await;
            }
            Some(Ok(Message::Binary(bytes))) => app.send(receive(websocket_receive::Content::Bytes(bytes))).await,
            // Answered by the library when it reads them.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(frame))) => break frame.map_or(NONE_GIVEN, |frame| frame.code.into()),
            Some(Err(_)) | None => break BROKEN,
        }
    };
    app.send_last(asgi::Type::WebsocketDisconnect(asgi::WebsocketDisconnect { code: Some(code) }));
}

/// The app's messages, to the client.
async fn receive_messages(mut call: WebCall, mut client: SplitSink<WebSocket, Message>) {
    let stopped = call.stopped();
    tokio::pin!(stopped);
    loop {
        let message = tokio::select! {
            message = call.next() => message,
            () = &mut stopped => None,
        };
        let (message, last) = match message {
            Some(asgi::Type::WebsocketSend(asgi::WebsocketSend { content: Some(content) })) => match content {
                websocket_send::Content::Text(text) => (Message::Text(text.into()), false),
                websocket_send::Content::Bytes(bytes) => (Message::Binary(bytes), false),
            },
            Some(asgi::Type::WebsocketClose(close)) => {
                let code = close.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(NORMAL);
                (Message::Close(Some(CloseFrame { code, reason: close.reason.into() })), true)
            }
            Some(_) => continue,
            None => {
                let ended_well = call.ending().await.is_some_and(|result| result.status() == GenericStatus::Success);
                let code = if ended_well { NORMAL } else { APP_FAILED };
                (Message::Close(Some(CloseFrame { code, reason: "".into() })), true)
            }
        };
        // The other direction notices, too, when the client disconnects.
        if client.send(message).await.is_err() || last {
            return;
        }
    }
}
