//! Functions and classes.

use modal_proto as pb;
use prost::Message;

use super::{Parts, refusals};
use crate::{
    endpoints,
    error::Error,
    state::{Definition, State, service_tag},
};

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
        // A function that accepts several GPUs has one definition for each; here, any of them will do.
        let data = pb::FunctionData::decode(request.function_data)
            .map_err(|error| Error::invalid("FunctionData", error.to_string()))?;
        let first = data.ranked_functions.into_iter().next();
        first.ok_or_else(|| Error::invalid("FunctionData", "it has no functions"))?.function
    } else {
        request.function
    };
    let ignore_gpu = shared.options.ignore_gpu;
    let definition = shared
        .change(|state, now| {
            let function =
                pb::Function::decode(encoded.clone()).map_err(|e| Error::invalid("Function", e.to_string()))?;
            refusals::check_function(&function, ignore_gpu, now)?;
            state.define_function(&request.app_id, &request.existing_function_id, encoded, function)
        })
        .await?;
    endpoints::reserve(shared, &definition).await?;
    Ok(shared.read(|state| pb::FunctionCreateResponse {
        function_id: definition.function_id.clone(),
        function: state.encoded_with_urls(&definition),
        handle_metadata: Some(state.definition_metadata(&definition)),
        function_data: Some(state.function_data(&definition)),
        ..Default::default()
    }))
}

pub async fn get(shared: &Parts, request: &pb::FunctionGetRequest) -> Result<pb::FunctionGetResponse, Error> {
    let pb::FunctionGetRequest { app_name, object_tag, environment_name, app_version } = request;
    let pinned = match app_version {
        0 => None,
        version => {
            let pin = |state: &mut State, _| state.pin_function(app_name, environment_name, object_tag, *version);
            Some(shared.change(pin).await?)
        }
    };
    shared.read(|state| {
        let app = state.deployed_app(app_name, environment_name).ok_or_else(|| Error::not_found("App", app_name))?;
        let function_id = pinned.as_ref().map(|function| &function.id).or_else(|| app.function_ids.get(object_tag));
        let definition = function_id
            .and_then(|id| state.live_definition(id))
            .ok_or_else(|| Error::not_found("Function", format!("{app_name}/{object_tag}")))?;
        Ok(pb::FunctionGetResponse {
            function_id: definition.function_id.clone(),
            handle_metadata: Some(state.definition_metadata(definition)),
            function: Some(state.function_data(definition)),
            ..Default::default()
        })
    })
}

pub fn get_by_id(shared: &Parts, request: &pb::FunctionGetByIdRequest) -> Result<pb::FunctionGetByIdResponse, Error> {
    shared.read(|state| {
        let definition = live(state, &request.function_id)?;
        Ok(pb::FunctionGetByIdResponse {
            function: Some(state.function_data(definition)),
            handle_metadata: Some(state.definition_metadata(definition)),
        })
    })
}

pub async fn bind_params(
    shared: &Parts,
    request: pb::FunctionBindParamsRequest,
) -> Result<pb::FunctionBindParamsResponse, Error> {
    if let Some(options) = &request.function_options {
        refusals::check_options(options, shared.options.ignore_gpu)?;
    }
    shared
        .change(|state, _| {
            let function = state.bind_function(request)?;
            let handle_metadata = Some(state.handle_metadata(&function));
            Ok(pb::FunctionBindParamsResponse { bound_function_id: function.id, handle_metadata })
        })
        .await
}

pub async fn update_autoscaler(
    shared: &Parts,
    request: pb::FunctionUpdateSchedulingParamsRequest,
) -> Result<pb::FunctionUpdateSchedulingParamsResponse, Error> {
    let settings = request.settings.unwrap_or_default();
    let current = shared.change(|state, _| state.update_autoscaler(&request.function_id, &settings)).await?;
    Ok(pb::FunctionUpdateSchedulingParamsResponse { current_settings: Some(current) })
}

pub fn autoscaler(
    shared: &Parts,
    request: &pb::FunctionGetSchedulingParamsRequest,
) -> Result<pb::FunctionGetSchedulingParamsResponse, Error> {
    shared.read(|state| {
        let settings = Some(state.autoscaler_settings(live(state, &request.function_id)?));
        let autoscaler_configuration = Some(pb::AutoscalerConfiguration { settings });
        Ok(pb::FunctionGetSchedulingParamsResponse { autoscaler_configuration })
    })
}

fn live<'a>(state: &'a State, function_id: &str) -> Result<&'a Definition, Error> {
    let definition = state.live_definition(function_id).map(AsRef::as_ref);
    definition.ok_or_else(|| Error::not_found("live Function", function_id))
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
            // The SDK does not name the version it asks for, except for a service function.
            .or_else(|| state.versions_of(&app.id).find_map(|version| version.class_ids.get(&request.object_tag)))
            .ok_or_else(|| Error::not_found("Cls", format!("{}/{}", request.app_name, request.object_tag)))?;
        let service = app.function_ids.get(&service_tag(&request.object_tag));
        let service = service.and_then(|id| state.functions.get(id));
        Ok(pb::ClassGetResponse {
            class_id: class_id.clone(),
            handle_metadata: Some(state.class_metadata(service)),
            ..Default::default()
        })
    })
}
