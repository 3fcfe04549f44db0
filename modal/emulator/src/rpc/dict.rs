//! Dicts.

use modal_proto as pb;

use super::{Parts, ResponseStream, page, response_stream, session::creation_info};
use crate::{error::Error, state::Dict};

pub async fn get_or_create(
    shared: &Parts,
    request: pb::DictGetOrCreateRequest,
) -> Result<pb::DictGetOrCreateResponse, Error> {
    let (dict_id, metadata) = shared
        .change(|state, now| {
            let id = state.get_or_create_dict(request, now)?;
            let metadata = metadata(state.dict(&id)?);
            Ok((id, metadata))
        })
        .await?;
    Ok(pb::DictGetOrCreateResponse { dict_id, metadata: Some(metadata) })
}

pub fn get_by_id(shared: &Parts, request: &pb::DictGetByIdRequest) -> Result<pb::DictGetByIdResponse, Error> {
    shared.read(|state| {
        let dict = state.dict(&request.dict_id)?;
        Ok(pb::DictGetByIdResponse { dict_id: dict.id.clone(), metadata: Some(metadata(dict)) })
    })
}

pub fn list(shared: &Parts, request: &pb::DictListRequest) -> pb::DictListResponse {
    let environment = crate::state::environment(&request.environment_name).to_owned();
    let info = |dict: &Dict| pb::dict_list_response::DictInfo {
        name: dict.name.clone(),
        created_at: dict.created_at,
        dict_id: dict.id.clone(),
        metadata: Some(metadata(dict)),
    };
    let dicts = shared.read(|state| {
        let named = state.dicts.values().filter(|d| !d.name.is_empty() && d.environment == environment);
        page(named, request.pagination, |dict| dict.created_at).into_iter().map(info).collect()
    });
    pb::DictListResponse { dicts, environment_name: environment }
}

pub async fn update(
    shared: &Parts,
    request_key: Option<&str>,
    request: pb::DictUpdateRequest,
) -> Result<pb::DictUpdateResponse, Error> {
    let (id, only_new) = (request.dict_id, request.if_not_exists);
    let created = shared
        .change(|state, _| {
            if state.stored_response(request_key).is_some() {
                return Ok(true);
            }
            let created = state.update_dict(&id, request.updates, only_new)?;
            // A client that created an entry with `if_not_exists` must not learn from its repeated request that it
            // exists.
            if only_new && created {
                state.remember_response(request_key, Vec::new());
            }
            Ok(created)
        })
        .await?;
    Ok(pb::DictUpdateResponse { created })
}

pub fn get(shared: &Parts, request: &pb::DictGetRequest) -> Result<pb::DictGetResponse, Error> {
    let value =
        shared.read(|state| Ok::<_, Error>(state.dict(&request.dict_id)?.entries.get(&request.key).cloned()))?;
    Ok(pb::DictGetResponse { found: value.is_some(), value })
}

pub async fn pop(
    shared: &Parts,
    request_key: Option<&str>,
    request: pb::DictPopRequest,
) -> Result<pb::DictPopResponse, Error> {
    let value = shared
        .change(|state, _| {
            if let Some(values) = state.stored_response(request_key) {
                return Ok(values.first().cloned());
            }
            let value = state.pop_dict(&request.dict_id, &request.key)?;
            if let Some(value) = &value {
                state.remember_response(request_key, vec![value.clone()]);
            }
            Ok(value)
        })
        .await?;
    Ok(pb::DictPopResponse { found: value.is_some(), value })
}

pub fn contains(shared: &Parts, request: &pb::DictContainsRequest) -> Result<pb::DictContainsResponse, Error> {
    let found =
        shared.read(|state| Ok::<_, Error>(state.dict(&request.dict_id)?.entries.contains_key(&request.key)))?;
    Ok(pb::DictContainsResponse { found })
}

pub fn contents(shared: &Parts, request: &pb::DictContentsRequest) -> Result<ResponseStream<pb::DictEntry>, Error> {
    let entries = shared.read(|state| {
        let wanted = state.dict(&request.dict_id)?.entries.iter().map(|(key, value)| pb::DictEntry {
            key: if request.keys { key.clone() } else { Default::default() },
            value: if request.values { value.clone() } else { Default::default() },
        });
        Ok::<_, Error>(wanted.collect::<Vec<_>>())
    })?;
    Ok(response_stream(entries))
}

pub fn len(shared: &Parts, request: &pb::DictLenRequest) -> Result<pb::DictLenResponse, Error> {
    let len = shared.read(|state| Ok::<_, Error>(state.dict(&request.dict_id)?.entries.len()))?;
    Ok(pb::DictLenResponse { len: i32::try_from(len).unwrap_or(i32::MAX) })
}

pub async fn clear(shared: &Parts, request: pb::DictClearRequest) -> Result<(), Error> {
    shared.change(|state, _| state.clear_dict(&request.dict_id)).await
}

pub async fn delete(shared: &Parts, request: pb::DictDeleteRequest) -> Result<(), Error> {
    shared.change(|state, _| state.delete_dict(&request.dict_id)).await
}

pub fn heartbeat(shared: &Parts, request: &pb::DictHeartbeatRequest) -> Result<(), Error> {
    shared.read(|state| state.dict(&request.dict_id).map(|_| ()))
}

fn metadata(dict: &Dict) -> pb::DictMetadata {
    pb::DictMetadata { name: dict.name.clone(), creation_info: Some(creation_info(dict.created_at)) }
}
