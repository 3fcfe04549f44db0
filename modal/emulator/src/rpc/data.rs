//! Streams of data beside a call: what generators yield, and the messages of web requests.

use std::time::Duration;

use modal_proto::{self as pb, data_chunk::DataOneof, function_call_get_data_request, function_call_put_data_request};
use prost::Message;

use super::{Answers, Parts};
use crate::{error::Error, ids::blob_hash, streams::Output};

/// How much is sent in answer to one request. The SDK asks again when it has handed all of it on, so that a slow
/// consumer never fills the window of the connection that its other requests need too.
const ANSWER_BYTES: usize = 1 << 20;

/// How long a generator that is far ahead of its readers waits for somebody to read on. Time enough to reconnect.
const DESERTED_AFTER: Duration = Duration::from_secs(60);

/// A container hands on what its generator yielded or its web app answered. The reply comes when there is room for
/// more: that is what slows it down.
pub async fn put_out(shared: &Parts, task_id: &str, request: pb::FunctionCallPutDataRequest) -> Result<(), Error> {
    let Some(function_call_put_data_request::CallInfo::FunctionCallId(call_id)) = request.call_info else {
        return Err(no_call());
    };
    if !shared.read(|state| state.runs_call(task_id, &call_id)) {
        return Err(Error::Conflict {
            kind: "FunctionCall",
            id: call_id,
            reason: "is not one that this container runs",
        });
    }
    match shared.streams.output(&call_id) {
        Output::Web(exchange) => exchange.response.write(request.data_chunks).await,
        Output::Generator(spool) => {
            if !spool.room(DESERTED_AFTER).await {
                tracing::info!(call.id = call_id, "a generator that nobody reads is cancelled");
                spool.drop_values();
                shared.change(|state, now| state.cancel_call(&call_id, false, now)).await?;
            }
            let blobs = request.data_chunks.iter().filter_map(|chunk| match &chunk.data_oneof {
                Some(DataOneof::DataBlobId(id)) => blob_hash(id).map(str::to_owned),
                _ => None,
            });
            let blobs: Vec<String> = blobs.collect();
            if !blobs.is_empty() {
                shared.change(|state, _| state.keep_yielded(&call_id, blobs)).await?;
            }
            spool.append(request.data_chunks).await?;
        }
    }
    Ok(())
}

/// A container reads a web request. The stream stays open at its end: the SDK would only ask again.
pub fn read_in(shared: &Parts, request: pb::FunctionCallGetDataRequest) -> Result<Answers<pb::DataChunk>, Error> {
    let (call_id, mut last_index) = wanted(request)?;
    let exchange = shared.streams.exchange(&call_id).ok_or_else(|| Error::not_found("FunctionCall", &call_id))?;
    let shared = shared.clone();
    Ok(Box::pin(async_stream::try_stream! {
        let mut sent = 0;
        while sent < ANSWER_BYTES {
            let chunk = tokio::select! {
                chunk = exchange.request.read(last_index) => chunk,
                () = shared.hang_up.cancelled() => None,
            };
            let Some(chunk) = chunk else {
                shared.hang_up.cancelled().await;
                Err(Error::ShuttingDown)?
            };
            last_index = chunk.index;
            sent += chunk.encoded_len();
            yield chunk;
        }
    }))
}

/// Somebody reads what a generator yields. The stream stays open at its end: the SDK would only ask again.
pub fn read_out(shared: &Parts, request: pb::FunctionCallGetDataRequest) -> Result<Answers<pb::DataChunk>, Error> {
    let (call_id, mut last_index) = wanted(request)?;
    shared.read(|state| state.call(&call_id).map(|_| ()))?;
    let reader = shared.streams.spool(&call_id).reader();
    let shared = shared.clone();
    Ok(Box::pin(async_stream::try_stream! {
        let mut sent = 0;
        while sent < ANSWER_BYTES {
            let read = tokio::select! {
                read = reader.read(last_index) => read,
                () = shared.hang_up.cancelled() => Err(Error::ShuttingDown),
            };
            for chunk in read?.ok_or_else(|| Error::not_found("FunctionCall", &call_id))? {
                last_index = chunk.index;
                sent += chunk.encoded_len();
                yield chunk;
            }
        }
    }))
}

fn wanted(request: pb::FunctionCallGetDataRequest) -> Result<(String, u64), Error> {
    match request.call_info {
        Some(function_call_get_data_request::CallInfo::FunctionCallId(call_id)) => Ok((call_id, request.last_index)),
        _ => Err(no_call()),
    }
}

fn no_call() -> Error {
    Error::invalid("call_info", "it has to be the id of a call; there is no input plane here")
}
