//! One web request as a call of its function.

use std::{sync::Arc, time::Instant};

use axum::http::StatusCode;
use modal_proto::{
    self as pb, Asgi, DataFormat, GenericResult, asgi, data_chunk::DataOneof, function_input::ArgsOneof,
    generic_result::GenericStatus,
};
use prost::Message;
use tokio::{sync::watch, task::AbortHandle};

use super::{refusal::Refusal, scope};
use crate::{
    error::Error,
    shared::Shared,
    state::{Now, State},
    streams::Exchange,
};

/// A request in progress. When it is dropped, the app learns that the client has disconnected.
pub struct WebCall {
    shared: Arc<Shared>,
    id: String,
    exchange: Arc<Exchange>,
    /// The index of the last message that was read.
    seen: u64,
    /// How it ended, once it has.
    result: watch::Receiver<Option<GenericResult>>,
    /// The task that sends the client's messages to the app.
    sender: Option<AbortHandle>,
}

impl WebCall {
    /// Queues a request with its scope as the arguments.
    pub fn begin(shared: &Arc<Shared>, function_id: &str, method: &str, scope: Vec<u8>) -> Result<Self, Error> {
        let input = pb::FunctionInput {
            args_oneof: Some(ArgsOneof::Args(scope.into())),
            data_format: scope::FORMAT.into(),
            method_name: (!method.is_empty()).then(|| method.to_owned()),
            ..Default::default()
        };
        let (id, give_up) = shared.change_soon(|state, now| {
            let definition = state.live_definition(function_id).cloned();
            let definition = definition.ok_or_else(|| Error::not_found("live Function", function_id))?;
            let id = state.begin_request(function_id, input, now)?;
            // Before a container can take it.
            shared.streams.begin_exchange(&id);
            Ok::<_, Error>((id, State::request_deadline(&definition, now)))
        })?;
        let exchange = shared.streams.begin_exchange(&id);
        let (sender, result) = watch::channel(None);
        let (watched, call_id) = (shared.clone(), id.clone());
        shared.endpoints.servers.spawn(async move { follow(&watched, &call_id, give_up, sender).await });
        Ok(Self { shared: shared.clone(), id, exchange, seen: 0, result, sender: None })
    }

    /// The app's next message; `None` when there are no more.
    pub async fn next(&mut self) -> Option<asgi::Type> {
        loop {
            let chunk = self.exchange.response.read(self.seen).await?;
            self.seen = chunk.index;
            let data = match chunk.data_oneof {
                Some(DataOneof::Data(data)) => data,
                Some(DataOneof::DataBlobId(id)) => match self.shared.files.read_blob(&id).await {
                    Ok(data) => data,
                    Err(error) => {
                        tracing::warn!(call.id = self.id, %error, "a large message of a web function was lost");
                        continue;
                    }
                },
                None => continue,
            };
            match Asgi::decode(data) {
                // The SDK sends empty messages for types that it does not know, either.
                Ok(Asgi { r#type: None }) => {}
                Ok(Asgi { r#type }) => return r#type,
                Err(error) => tracing::warn!(call.id = self.id, %error, "a web function's message is not valid"),
            }
        }
    }

    /// Starts a task that sends the client's messages. It ends with the request.
    pub fn send_with<F: Future<Output = ()> + Send + 'static>(&mut self, send: impl FnOnce(AppSender) -> F) {
        let task = self.shared.endpoints.servers.spawn(send(self.app_sender()));
        self.sender = Some(task.abort_handle());
    }

    fn app_sender(&self) -> AppSender {
        AppSender { shared: self.shared.clone(), id: self.id.clone(), exchange: self.exchange.clone() }
    }

    /// Resolves when the server stops.
    pub fn stopped(&self) -> tokio_util::sync::WaitForCancellationFutureOwned {
        self.shared.close_streams.clone().cancelled_owned()
    }

    /// How the request ended, once there are no more messages.
    pub async fn ending(&mut self) -> Option<GenericResult> {
        match self.result.wait_for(Option::is_some).await {
            Ok(result) => result.clone(),
            // The server is stopping.
            Err(_) => None,
        }
    }

    /// The response in place of the app's.
    pub async fn failure(&mut self) -> Refusal {
        let Some(result) = self.ending().await else {
            return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down");
        };
        let (status, what) = match result.status() {
            GenericStatus::Success => (StatusCode::INTERNAL_SERVER_ERROR, "the app ended without an answer"),
            GenericStatus::Timeout => (StatusCode::GATEWAY_TIMEOUT, "the request took longer than it may"),
            GenericStatus::Terminated => (StatusCode::SERVICE_UNAVAILABLE, "the request was given up"),
            GenericStatus::InitFailure => (StatusCode::INTERNAL_SERVER_ERROR, "the container did not start"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "the app failed"),
        };
        let reason =
            if result.exception.is_empty() { what.to_owned() } else { format!("{what}: {}", result.exception) };
        Refusal::new(status, reason)
    }
}

impl Drop for WebCall {
    fn drop(&mut self) {
        if let Some(sender) = &self.sender {
            sender.abort();
        }
        self.exchange.response.discard();
        self.app_sender().cut();
    }
}

/// Sends the client's messages to the app.
pub struct AppSender {
    shared: Arc<Shared>,
    /// The id of the call.
    id: String,
    exchange: Arc<Exchange>,
}

impl AppSender {
    /// Sends a message when there is room.
    pub async fn send(&self, message: asgi::Type) {
        self.exchange.request.write_next(DataFormat::Asgi.into(), encode(message)).await;
    }

    /// Sends the last message, unless it was sent already.
    pub fn send_last(&self, message: asgi::Type) {
        self.exchange.request.write_last(DataFormat::Asgi.into(), encode(message));
    }

    /// The client's side ended early: the app learns of it, unless it has all of that side. A request that still waits
    /// for a container leaves the queue.
    pub fn cut(&self) {
        self.send_last(asgi::Type::HttpDisconnect(asgi::HttpDisconnect {}));
        self.shared.change_soon(|state, now| state.abandon_request(&self.id, now));
    }
}

fn encode(message: asgi::Type) -> Vec<u8> {
    Asgi { r#type: Some(message) }.encode_to_vec()
}

/// Waits for the end of a request, reports it, and cleans up.
async fn follow(shared: &Shared, call_id: &str, give_up: Instant, tell: watch::Sender<Option<GenericResult>>) {
    let taken = shared.wait_for(call_id, Some(give_up), |state, _| {
        let over = state.is_taken(call_id) || state.request_result(call_id).is_some();
        Ok(over.then_some(()))
    });
    if let Ok(None) = taken.await {
        tracing::info!(call.id = call_id, "no container was free for a web request in time");
        shared.change_soon(|state, now| state.abandon_request(call_id, now));
    }
    let result = shared.wait_for(call_id, None, |state, _| Ok(state.request_result(call_id))).await;
    if let Ok(result) = result {
        // The receiver is dropped if the client has disconnected.
        let _ = tell.send(result);
    }
    drop(tell);
    shared.streams.end_exchange(call_id);
    shared.change_soon(|state, _: Now| state.forget_request(call_id));
}
