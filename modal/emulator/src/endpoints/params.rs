//! Parameters of a class whose method is a web endpoint: the query has them, as on Modal.

use std::sync::Arc;

use axum::{
    extract::Query,
    http::{StatusCode, Uri},
};
use modal_proto::{
    self as pb, ClassParameterSpec, ClassParameterValue, ParameterType, class_parameter_spec::DefaultOneof,
    class_parameter_value::ValueOneof,
};
use prost::Message;

use super::refusal::Refusal;
use crate::{shared::Shared, state::Definition};

/// The function that handles the request: the definition's own, or the one that is bound to the parameters of its
/// class.
pub async fn bind(shared: &Arc<Shared>, definition: &Definition, uri: &Uri) -> Result<String, Refusal> {
    let wanted = definition.parameters();
    if wanted.is_empty() {
        return Ok(definition.function_id.clone());
    }
    let given = Query::<Vec<(String, String)>>::try_from_uri(uri);
    let Query(given) = given.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let values: Result<_, String> = wanted.iter().map(|parameter| value(parameter, &given)).collect();
    let parameters = values.map_err(|reason| Refusal::new(StatusCode::BAD_REQUEST, reason))?;
    let request = pb::FunctionBindParamsRequest {
        function_id: definition.function_id.clone(),
        serialized_params: pb::ClassParameterSet { parameters }.encode_to_vec().into(),
        function_options: None,
    };
    let bound = shared.change(|state, _| state.bind_function(request)).await?;
    Ok(bound.id)
}

fn value(parameter: &ClassParameterSpec, given: &[(String, String)]) -> Result<ClassParameterValue, String> {
    let name = &parameter.name;
    let kind = parameter.r#type();
    let bad = |what: &str| Err(format!("the parameter {name:?} in the query has to be {what}"));
    let value = match (given.iter().find(|(key, _)| key == name), kind, &parameter.default_oneof) {
        (Some((_, text)), ParameterType::ParamTypeString, _) => ValueOneof::StringValue(text.clone()),
        (Some((_, text)), ParameterType::ParamTypeBytes, _) => ValueOneof::BytesValue(text.clone().into()),
        (Some((_, text)), ParameterType::ParamTypeInt, _) => match text.parse() {
            Ok(number) => ValueOneof::IntValue(number),
            Err(_) => return bad("a whole number"),
        },
        (Some((_, text)), ParameterType::ParamTypeBool, _) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => ValueOneof::BoolValue(true),
            "false" | "0" => ValueOneof::BoolValue(false),
            _ => return bad("true or false"),
        },
        (Some(_), _, _) => return Err(format!("the parameter {name:?} is of a kind that a query cannot give")),
        (None, _, Some(default)) => match default.clone() {
            DefaultOneof::StringDefault(text) => ValueOneof::StringValue(text),
            DefaultOneof::IntDefault(number) => ValueOneof::IntValue(number),
            DefaultOneof::PickleDefault(pickle) => ValueOneof::PickleValue(pickle),
            DefaultOneof::BytesDefault(bytes) => ValueOneof::BytesValue(bytes),
            DefaultOneof::BoolDefault(flag) => ValueOneof::BoolValue(flag),
        },
        (None, _, None) => return Err(format!("the query has to give the class its parameter {name:?}")),
    };
    Ok(ClassParameterValue { name: name.clone(), r#type: parameter.r#type, value_oneof: Some(value) })
}
