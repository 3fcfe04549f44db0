//! Streams of data beside a call: what generators yield, and the messages of web requests.

use std::time::Duration;

use modal_proto::{self as pb, data_chunk::DataOneof, function_call_get_data_request, function_call_put_data_request};
use prost::Message;

use super::{Parts, ResponseStream};
use crate::{error::Error, ids::blob_hash, streams::Output};

/// How much is sent in response to one request. The SDK repeats it after it has passed on the data, so that a slow
/// consumer never fills the connection's window, which its other requests need, too.
const ANSWER_BYTES: usize = 1 << 20;

/// How long a generator that is far ahead of its readers waits for one of them to continue: enough to reconnect.
const DESERTED_AFTER: Duration = Duration::from_secs(60);

/// Takes what a container's generator yielded or its web app responded. The reply is delayed until there is room for
/// more, which slows the container down.
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
                tracing::info!(call.id = call_id, "canceling a generator that nobody reads");
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

/// Streams a web request to a container. The stream stays open at its end, because the SDK would repeat the request.
pub fn read_in(
    shared: &Parts,
    request: pb::FunctionCallGetDataRequest,
) -> Result<ResponseStream<pb::DataChunk>, Error> {
    let (call_id, mut last_index) = wanted(request)?;
    let exchange = shared.streams.exchange(&call_id).ok_or_else(|| Error::not_found("FunctionCall", &call_id))?;
    let shared = shared.clone();
    Ok(Box::pin(async_stream::try_stream! {
        let mut sent = 0;
        while sent < ANSWER_BYTES {
            let chunk = tokio::select! {
                chunk = exchange.request.read(last_index) => chunk,
                () = shared.close_streams.cancelled() => None,
            };
            let Some(chunk) = chunk else {
                shared.close_streams.cancelled().await;
                Err(Error::ShuttingDown)?
            };
            last_index = chunk.index;
            sent += chunk.encoded_len();
            yield chunk;
        }
    }))
}

/// Streams the values of a generator to a reader. The stream stays open at its end, because the SDK would repeat the
/// request.
pub fn read_out(
    shared: &Parts,
    request: pb::FunctionCallGetDataRequest,
) -> Result<ResponseStream<pb::DataChunk>, Error> {
    let (call_id, mut last_index) = wanted(request)?;
    shared.read(|state| state.call(&call_id).map(|_| ()))?;
    let reader = shared.streams.spool(&call_id).reader();
    let shared = shared.clone();
    Ok(Box::pin(async_stream::try_stream! {
        let mut sent = 0;
        while sent < ANSWER_BYTES {
            let read = tokio::select! {
                read = reader.read(last_index) => read,
                () = shared.close_streams.cancelled() => Err(Error::ShuttingDown),
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
    Error::invalid("call_info", "it must be the id of a call; there is no input plane here")
}
