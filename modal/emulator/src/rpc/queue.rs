//! Queues.

use std::time::{Duration, Instant};

use modal_proto as pb;

use super::{Parts, page, seconds, session::creation_info};
use crate::{
    error::Error,
    state::{Now, Queue},
};

/// The longest that one request waits. The SDK repeats it.
const LONGEST_POLL: Duration = Duration::from_secs(60);
/// About how many bytes of a Queue go into one response to an iterator.
const ITERATION_BYTES: usize = 4 << 20;

pub async fn get_or_create(
    shared: &Parts,
    request: pb::QueueGetOrCreateRequest,
) -> Result<pb::QueueGetOrCreateResponse, Error> {
    let (queue_id, metadata) = shared
        .change(|state, now| {
            let id = state.get_or_create_queue(&request, now)?;
            let metadata = metadata(state.queue(&id)?);
            Ok((id, metadata))
        })
        .await?;
    Ok(pb::QueueGetOrCreateResponse { queue_id, metadata: Some(metadata) })
}

pub fn get_by_id(shared: &Parts, request: &pb::QueueGetByIdRequest) -> Result<pb::QueueGetByIdResponse, Error> {
    shared.read(|state| {
        let queue = state.queue(&request.queue_id)?;
        Ok(pb::QueueGetByIdResponse { queue_id: queue.id.clone(), metadata: Some(metadata(queue)) })
    })
}

pub fn heartbeat(shared: &Parts, request: &pb::QueueHeartbeatRequest) -> Result<(), Error> {
    shared.read(|state| state.queue(&request.queue_id).map(|_| ()))
}

pub fn list(shared: &Parts, request: &pb::QueueListRequest) -> pb::QueueListResponse {
    let environment = crate::state::environment(&request.environment_name).to_owned();
    let (now, limit) = (Now::read(), usize::try_from(request.total_size_limit).ok().filter(|limit| *limit > 0));
    let info = |queue: &Queue| pb::queue_list_response::QueueInfo {
        name: queue.name.clone(),
        created_at: queue.created_at,
        num_partitions: count(queue.partitions(now)),
        total_size: count(queue.len(None, now).min(limit.unwrap_or(usize::MAX))),
        queue_id: queue.id.clone(),
        metadata: Some(metadata(queue)),
    };
    let queues = shared.read(|state| {
        let named = state.item_queues.values().filter(|q| !q.name.is_empty() && q.environment == environment);
        page(named, request.pagination, |queue| queue.created_at).into_iter().map(info).collect()
    });
    pb::QueueListResponse { queues, environment_name: environment }
}

pub async fn delete(shared: &Parts, request: pb::QueueDeleteRequest) -> Result<(), Error> {
    shared.change(|state, _| state.delete_queue(&request.queue_id)).await
}

pub async fn put(shared: &Parts, request_key: Option<&str>, request: pb::QueuePutRequest) -> Result<(), Error> {
    let pb::QueuePutRequest { queue_id, values, partition_key, partition_ttl_seconds } = request;
    shared
        .change(|state, now| {
            if state.stored_response(request_key).is_none() {
                state.put_queue(&queue_id, partition_key, values, partition_ttl_seconds, now)?;
                state.remember_response(request_key, Vec::new());
            }
            Ok(())
        })
        .await
}

pub async fn get(
    shared: &Parts,
    request_key: Option<&str>,
    request: pb::QueueGetRequest,
) -> Result<pb::QueueGetResponse, Error> {
    let most = usize::try_from(request.n_values).unwrap_or_default();
    if most == 0 {
        return Err(Error::invalid("n_values", "it must be at least 1"));
    }
    let until = Instant::now() + seconds(request.timeout).min(LONGEST_POLL);
    let values = shared
        .wait_for(&request.queue_id, Some(until), |state, now| {
            if let Some(values) = state.stored_response(request_key) {
                return Ok(Some(values.clone()));
            }
            let values = state.take_queue(&request.queue_id, &request.partition_key, most, now)?;
            if values.is_empty() {
                return Ok(None);
            }
            state.remember_response(request_key, values.clone());
            Ok(Some(values))
        })
        .await?;
    Ok(pb::QueueGetResponse { values: values.unwrap_or_default() })
}

pub async fn next_items(
    shared: &Parts,
    request: pb::QueueNextItemsRequest,
) -> Result<pb::QueueNextItemsResponse, Error> {
    let until = Instant::now() + seconds(request.item_poll_timeout).min(LONGEST_POLL);
    let (partition, after) = (&request.partition_key, &request.last_entry_id);
    let items = shared
        .wait_for(&request.queue_id, Some(until), |state, now| {
            let items = state.queue(&request.queue_id)?.after(partition, after, ITERATION_BYTES, now);
            Ok((!items.is_empty()).then_some(items))
        })
        .await?;
    let items = items.into_iter().flatten();
    let items = items.map(|item| pb::QueueItem { entry_id: item.sequence().to_owned(), value: item.value }).collect();
    Ok(pb::QueueNextItemsResponse { items })
}

pub fn len(shared: &Parts, request: &pb::QueueLenRequest) -> Result<pb::QueueLenResponse, Error> {
    let partition = (!request.total).then_some(&request.partition_key);
    let len = shared.read(|state| Ok::<_, Error>(state.queue(&request.queue_id)?.len(partition, Now::read())))?;
    Ok(pb::QueueLenResponse { len: count(len) })
}

pub async fn clear(shared: &Parts, request: pb::QueueClearRequest) -> Result<(), Error> {
    let partition = (!request.all_partitions).then_some(&request.partition_key);
    shared.change(|state, _| state.clear_queue(&request.queue_id, partition)).await
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn metadata(queue: &Queue) -> pb::QueueMetadata {
    pb::QueueMetadata { name: queue.name.clone(), creation_info: Some(creation_info(queue.created_at)) }
}
