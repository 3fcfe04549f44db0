//! Functions and classes.

use modal_proto as pb;
use prost::Message;

use super::Parts;
use crate::{error::Error, state::next_time};

pub async fn precreate(
    shared: &Parts,
    request: pb::FunctionPrecreateRequest,
) -> Result<pb::FunctionPrecreateResponse, Error> {
    shared
        .change(|state, _| {
            let function = state.announce_function(request)?;
            let handle_metadata = Some(state.handle_metadata(&function));
            Ok(pb::FunctionPrecreateResponse { function_id: function.id, handle_metadata })
        })
        .await
}

pub async fn create(shared: &Parts, request: pb::FunctionCreateRequest) -> Result<pb::FunctionCreateResponse, Error> {
    let encoded = if request.function.is_empty() {
        // With several GPUs to choose from, there is one definition for each; here, any of them will do.
        let data = pb::FunctionData::decode(request.function_data)
            .map_err(|error| Error::invalid("FunctionData", error.to_string()))?;
        let first = data.ranked_functions.into_iter().next();
        first.ok_or_else(|| Error::invalid("FunctionData", "it has no functions"))?.function
    } else {
        request.function
    };
    let definition = shared
        .change(|state, now| {
            let definition = state.define_function(&request.app_id, &request.existing_function_id, encoded)?;
            if let Some(schedule) = &definition.function.schedule {
                next_time(schedule, now.wall)?;
            }
            Ok(definition)
        })
        .await?;
    Ok(pb::FunctionCreateResponse {
        function_id: definition.function_id.clone(),
        function: definition.encoded.clone(),
        handle_metadata: Some(definition.handle_metadata()),
        function_data: Some(definition.function_data()),
        ..Default::default()
    })
}

pub fn get(shared: &Parts, request: &pb::FunctionGetRequest) -> Result<pb::FunctionGetResponse, Error> {
    shared.read(|state| {
        let app = state
            .deployed_app(&request.app_name, &request.environment_name)
            .ok_or_else(|| Error::not_found("App", &request.app_name))?;
        let definition = app
            .function_ids
            .get(&request.object_tag)
            .and_then(|id| state.live_definition(id))
            .ok_or_else(|| Error::not_found("Function", format!("{}/{}", request.app_name, request.object_tag)))?;
        Ok(pb::FunctionGetResponse {
            function_id: definition.function_id.clone(),
            handle_metadata: Some(definition.handle_metadata()),
            function: Some(definition.function_data()),
            ..Default::default()
        })
    })
}

pub async fn create_class(shared: &Parts, request: pb::ClassCreateRequest) -> Result<pb::ClassCreateResponse, Error> {
    let class = shared.change(|state, _| state.define_class(&request.app_id, &request.existing_class_id)).await?;
    Ok(pb::ClassCreateResponse { class_id: class.id, handle_metadata: Some(pb::ClassHandleMetadata::default()) })
}

pub fn get_class(shared: &Parts, request: &pb::ClassGetRequest) -> Result<pb::ClassGetResponse, Error> {
    shared.read(|state| {
        let app = state
            .deployed_app(&request.app_name, &request.environment_name)
            .ok_or_else(|| Error::not_found("App", &request.app_name))?;
        let class_id = app
            .class_ids
            .get(&request.object_tag)
            .ok_or_else(|| Error::not_found("Cls", format!("{}/{}", request.app_name, request.object_tag)))?;
        Ok(pb::ClassGetResponse {
            class_id: class_id.clone(),
            handle_metadata: Some(state.class_metadata(app, &request.object_tag)),
            ..Default::default()
        })
    })
}
