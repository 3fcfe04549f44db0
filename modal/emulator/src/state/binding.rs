//! Bound functions: functions with parameters of their class or other options, and their own containers.
//!
//! They are derived from their base whenever it changes, so they follow redeployments. They are removed with their
//! base.

use std::sync::Arc;

use modal_proto as pb;
use prost::{
    Message,
    bytes::{Buf, Bytes},
    encoding::{self, DecodeContext, WireType},
};
use sha2::{Digest, Sha256};

use super::{Definition, Function, State};
use crate::{error::Error, ids::new_id};

/// Tags of `Function`'s fields that options replace instead of extending.
const SECRET_IDS: u32 = 10;
const VOLUME_MOUNTS: u32 = 33;

impl State {
    /// The function that results from a base with parameters or options. The same request always returns the same one.
    pub fn bind_function(&mut self, request: pb::FunctionBindParamsRequest) -> Result<Function, Error> {
        let base = self.function(&request.function_id)?;
        if base.binding().is_some() {
            return Err(Error::invalid("function_id", "options are for a function as it was deployed"));
        }
        let (base_id, app_id) = (base.id.clone(), base.app_id.clone());
        let definition = self.live_definition(&base_id).cloned();
        let definition = definition.ok_or_else(|| Error::not_found("live Function", &base_id))?;
        let id = bound_id(&definition, &request);
        if let Some(function) = self.functions.get(&id) {
            return Ok(function.clone());
        }
        let definition = bind(&definition, &id, &request)?;
        let function = Function {
            live: Some(definition.id.clone()),
            bound_to: Some(base_id),
            announced: request.encode_to_vec().into(),
            ..Function::new(id.clone(), app_id)
        };
        self.definitions.insert(definition.id.clone(), Arc::new(definition));
        self.save(&function);
        self.functions.insert(id, function.clone());
        Ok(function)
    }

    /// Derives the functions that are bound to a base again from its live definition, and retires their old containers.
    pub(super) fn rebind(&mut self, base_id: &str) {
        let Some(base) = self.functions.get(base_id).and_then(|f| self.definitions.get(f.live.as_ref()?)).cloned()
        else {
            return;
        };
        let bound: Vec<Function> =
            self.functions.values().filter(|f| f.bound_to.as_deref() == Some(base_id)).cloned().collect();
        for mut function in bound {
            let Some(request) = function.binding() else { continue };
            match bind(&base, &function.id, &request) {
                Ok(definition) => {
                    if let Some(old) = function.live.replace(definition.id.clone()) {
                        self.definitions.remove(&old);
                    }
                    self.retire_others(&function.id, &definition.id);
                    self.definitions.insert(definition.id.clone(), Arc::new(definition));
                    self.functions.insert(function.id.clone(), function);
                }
                Err(error) => tracing::error!(function.id, %error, "a bound function could not be made"),
            }
        }
    }
}

impl Function {
    /// The request that bound it, if it is bound.
    pub fn binding(&self) -> Option<pb::FunctionBindParamsRequest> {
        self.bound_to.as_ref()?;
        // It was encoded here before it was stored.
        pb::FunctionBindParamsRequest::decode(self.announced.clone()).ok()
    }

    /// The parameters that its containers get.
    pub fn params(&self) -> Bytes {
        self.binding().map(|request| request.serialized_params).unwrap_or_default()
    }

    /// The function that it is bound to, or itself.
    pub fn base_id(&self) -> &str {
        self.bound_to.as_deref().unwrap_or(&self.id)
    }
}

/// The id for parameters and options, independent of the order of the parameters.
fn bound_id(base: &Definition, request: &pb::FunctionBindParamsRequest) -> String {
    let mut params = request.serialized_params.clone();
    // Only declared parameters have this format; others are compared byte by byte.
    if !base.parameters().is_empty()
        && let Ok(mut set) = pb::ClassParameterSet::decode(params.clone())
    {
        set.parameters.sort_by(|a, b| a.name.cmp(&b.name));
        params = set.encode_to_vec().into();
    }
    let options = Some(request.function_options.clone().unwrap_or_default());
    let same = pb::FunctionBindParamsRequest {
        function_id: request.function_id.clone(),
        serialized_params: params,
        function_options: options,
    };
    format!("fu-{}", &hex::encode(Sha256::digest(same.encode_to_vec()))[..32])
}

pub(super) fn bind(base: &Definition, id: &str, request: &pb::FunctionBindParamsRequest) -> Result<Definition, Error> {
    let options = request.function_options.clone().unwrap_or_default();
    let mut replaced = Vec::new();
    if options.replace_secret_ids {
        replaced.push(SECRET_IDS);
    }
    if options.replace_volume_mounts {
        replaced.push(VOLUME_MOUNTS);
    }
    let bad = |error: prost::DecodeError| Error::invalid("Function", error.to_string());
    let mut encoded = without(&base.encoded, &replaced).map_err(bad)?;
    // Appended fields win over earlier ones, field by field in nested messages, and lists grow.
    overlay(options).encode(&mut encoded).map_err(|error| Error::invalid("FunctionOptions", error.to_string()))?;
    let encoded = Bytes::from(encoded);
    Ok(Definition {
        id: new_id("de"),
        function_id: id.to_owned(),
        app_id: base.app_id.clone(),
        bound_from: Some(base.id.clone()),
        function: pb::Function::decode(encoded.clone()).map_err(bad)?,
        encoded,
    })
}

/// The changes that options make to a function.
fn overlay(options: pb::FunctionOptions) -> pb::Function {
    pb::Function {
        resources: options.resources,
        secret_ids: options.secret_ids,
        retry_policy: options.retry_policy,
        concurrency_limit: options.concurrency_limit.unwrap_or_default(),
        timeout_secs: options.timeout_secs.unwrap_or_default(),
        task_idle_timeout_secs: options.task_idle_timeout_secs.unwrap_or_default(),
        volume_mounts: options.volume_mounts,
        max_concurrent_inputs: options.max_concurrent_inputs.unwrap_or_default(),
        target_concurrent_inputs: options.target_concurrent_inputs.unwrap_or_default(),
        batch_max_size: options.batch_max_size.unwrap_or_default(),
        batch_linger_ms: options.batch_linger_ms.unwrap_or_default(),
        autoscaler_settings: Some(pb::AutoscalerSettings {
            // Only the base keeps containers warm; otherwise each set of parameters would keep its own.
            min_containers: Some(options.warm_pool_size.unwrap_or(0)),
            max_containers: options.concurrency_limit,
            buffer_containers: options.buffer_containers,
            scaledown_window: options.task_idle_timeout_secs,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// An encoded message without some of its fields; the others stay byte for byte.
fn without(encoded: &Bytes, tags: &[u32]) -> Result<Vec<u8>, prost::DecodeError> {
    let mut rest = encoded.clone();
    let mut kept = Vec::with_capacity(encoded.len());
    while rest.has_remaining() {
        let field = rest.clone();
        let (tag, wire_type): (u32, WireType) = encoding::decode_key(&mut rest)?;
        encoding::skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        if !tags.contains(&tag) {
            kept.extend_from_slice(&field[..field.len() - rest.len()]);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Definition {
        let function = pb::Function {
            function_name: "f".into(),
            secret_ids: vec!["st-1".into()],
            timeout_secs: 10,
            autoscaler_settings: Some(pb::AutoscalerSettings {
                min_containers: Some(2),
                scaledown_window: Some(9),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut encoded = function.encode_to_vec();
        // An unknown field: number 99, two bytes.
        encoded.extend([0x9a, 0x06, 2, 7, 7]);
        let encoded = Bytes::from(encoded);
        Definition {
            id: "de-1".into(),
            function_id: "fu-1".into(),
            app_id: "ap-1".into(),
            bound_from: None,
            encoded,
            function,
        }
    }

    #[test]
    fn options_override_only_the_named_fields() {
        let options = pb::FunctionOptions {
            secret_ids: vec!["st-2".into()],
            replace_secret_ids: true,
            concurrency_limit: Some(3),
            ..Default::default()
        };
        let request = pb::FunctionBindParamsRequest { function_options: Some(options), ..Default::default() };
        let bound = bind(&base(), "fu-2", &request).unwrap();
        assert_eq!((bound.function.secret_ids, bound.function.timeout_secs), (vec!["st-2".to_owned()], 10));
        let autoscaler = bound.function.autoscaler_settings.unwrap();
        assert_eq!(
            (autoscaler.min_containers, autoscaler.max_containers, autoscaler.scaledown_window),
            (Some(0), Some(3), Some(9))
        );
        assert!(bound.encoded.windows(5).any(|bytes| bytes == [0x9a, 0x06, 2, 7, 7]));
        assert_eq!(bound.bound_from.as_deref(), Some("de-1"));
    }
}
