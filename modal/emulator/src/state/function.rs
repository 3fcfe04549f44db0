//! Functions, their definitions and classes.
//!
//! A function is an id that stays the same across redeployments; a definition is the content of one `FunctionCreate`
//! request. A new definition is staged: it becomes live when its app is published.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use modal_proto as pb;
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CallOrigin, Now, State, scale::Overrides};
use crate::{error::Error, ids::new_id, store::Record};

/// A function of an app.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Function {
    pub id: String,
    pub app_id: String,
    /// The definition that calls use, once its app is published.
    pub live: Option<String>,
    /// The base function, if this one is bound to parameters or options.
    #[serde(default)]
    pub bound_to: Option<String>,
    /// The version of its app that it is pinned to, if any.
    #[serde(default)]
    pub pinned_version: Option<u32>,
    #[serde(default)]
    pub overrides: Overrides,
    /// The ports of its web methods by their names; the function itself has none.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// An encoded [`pb::Function`] with what is known before the first definition; for a bound function, the encoded
    /// [`pb::FunctionBindParamsRequest`] that created it.
    #[serde(skip)]
    pub announced: Bytes,
}

impl Record for Function {
    const KIND: &'static str = "function";
    fn id(&self) -> &str {
        &self.id
    }
    fn payload(&self) -> Bytes {
        self.announced.clone()
    }
    fn set_payload(&mut self, payload: Bytes) {
        self.announced = payload;
    }
}

/// A definition of a function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Definition {
    pub id: String,
    pub function_id: String,
    pub app_id: String,
    /// The base's definition, if this one is of a bound function.
    #[serde(default, rename = "code")]
    pub bound_from: Option<String>,
    /// The SDK's `Function` message, byte for byte, as containers receive it.
    #[serde(skip)]
    pub encoded: Bytes,
    /// The decoded part that is used here.
    #[serde(skip)]
    pub function: pb::Function,
}

impl Record for Definition {
    const KIND: &'static str = "definition";
    fn id(&self) -> &str {
        &self.id
    }
    fn payload(&self) -> Bytes {
        self.encoded.clone()
    }
    fn set_payload(&mut self, payload: Bytes) {
        // It was decoded before it was stored, so this succeeds; an empty definition would fail its calls visibly.
        self.function = pb::Function::decode(payload.clone()).unwrap_or_default();
        self.encoded = payload;
    }
}

/// A class. Its service function runs its methods.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Class {
    pub id: String,
    pub app_id: String,
}

impl Record for Class {
    const KIND: &'static str = "class";
    fn id(&self) -> &str {
        &self.id
    }
}

impl State {
    /// The function of an id.
    pub fn function(&self, id: &str) -> Result<&Function, Error> {
        self.functions.get(id).ok_or_else(|| Error::not_found("Function", id))
    }

    /// The name of the file tree that the containers of a definition see. Functions of an app with the same image and
    /// the same mounts share one; a rebuilt image has another.
    pub fn tree_name(&self, definition: &Definition) -> String {
        let Definition { app_id, function, .. } = definition;
        let build = self.images.get(&function.image_id).and_then(|image| image.built.as_ref());
        let (none, mut hash) = (String::new(), Sha256::new());
        for part in [app_id, &function.image_id, build.map_or(&none, |built| &built.key)] {
            hash.update(part);
            hash.update([0]);
        }
        for mount_id in &function.mount_ids {
            hash.update(mount_id);
            hash.update([0]);
        }
        hex::encode(&hash.finalize()[..16])
    }

    /// Whether a definition is the live one of its function.
    pub fn is_live_definition(&self, definition_id: &str) -> bool {
        let function_id = self.definitions.get(definition_id).map(|definition| &definition.function_id);
        let live = function_id.and_then(|id| self.live_definition(id));
        live.is_some_and(|definition| definition.id == definition_id)
    }

    /// The live definition of a function, if its app is published and runs; a function that builds an image runs before
    /// that.
    pub fn live_definition(&self, function_id: &str) -> Option<&Arc<Definition>> {
        let function = self.functions.get(function_id)?;
        let definition = self.definitions.get(function.live.as_ref()?)?;
        let app = self.apps.get(&function.app_id)?;
        let runs = app.is_live() || (definition.function.is_builder_function && !app.is_stopped());
        runs.then_some(definition)
    }

    /// The name of a function in its app's code.
    pub fn function_name(&self, function: &Function) -> String {
        let defined = |id: &String| self.definitions.get(id).map(|d| d.function.function_name.clone());
        let staged = || self.definitions.values().find(|d| d.function_id == function.id);
        let live = function.live.as_ref().and_then(defined);
        live.or_else(|| staged().map(|d| d.function.function_name.clone())).unwrap_or_default()
    }

    /// Assigns an id to a function before it is defined.
    pub fn announce_function(&mut self, request: pb::FunctionPrecreateRequest) -> Result<Function, Error> {
        self.app(&request.app_id)?;
        if let Some(function) = self.functions.get(&request.existing_function_id) {
            return Ok(function.clone());
        }
        let announced = pb::Function {
            function_name: request.function_name,
            function_type: request.function_type,
            method_definitions: request.method_definitions,
            webhook_config: request.webhook_config,
            function_schema: request.function_schema,
            supported_input_formats: request.supported_input_formats,
            supported_output_formats: request.supported_output_formats,
            ..Default::default()
        };
        let function = self.new_function(&request.app_id, announced.encode_to_vec().into());
        Ok(function)
    }

    /// Stages a definition of a function, which is decoded already.
    pub fn define_function(
        &mut self,
        app_id: &str,
        existing_function_id: &str,
        encoded: Bytes,
        function: pb::Function,
    ) -> Result<Arc<Definition>, Error> {
        self.app(app_id)?;
        let function_id = match self.functions.get(existing_function_id) {
            Some(existing) => existing.id.clone(),
            None => self.new_function(app_id, encoded.clone()).id,
        };
        let (id, app_id) = (new_id("de"), app_id.to_owned());
        let definition = Definition { id, function_id, app_id, bound_from: None, encoded, function };
        self.save(&definition);
        let definition = Arc::new(definition);
        self.definitions.insert(definition.id.clone(), definition.clone());
        if definition.function.is_builder_function {
            let mut function = self.function(&definition.function_id)?.clone();
            function.live = Some(definition.id.clone());
            self.save(&function);
            self.functions.insert(function.id.clone(), function);
        }
        Ok(definition)
    }

    /// The functions of an app that are steps of images' builds.
    pub fn builder_functions(&self, app_id: &str) -> BTreeSet<String> {
        let builders = self.definitions.values().filter(|d| d.app_id == app_id && d.function.is_builder_function);
        builders.map(|definition| definition.function_id.clone()).collect()
    }

    /// Calls a function that is a step of an image's build. The call of an earlier, interrupted build ends.
    pub fn begin_build(&mut self, id: &str, input: pb::FunctionInput, now: Now) -> Result<String, Error> {
        let earlier: Vec<String> = self
            .calls
            .values()
            .filter(|c| c.function_id == id && !c.unfinished.is_empty())
            .map(|c| c.id.clone())
            .collect();
        for call_id in earlier {
            self.cancel_call(&call_id, true, now)?;
        }
        let call_id = self.begin_call(id, pb::FunctionCallInvocationType::Sync.into(), CallOrigin::default(), now)?;
        self.add_input(&call_id, 0, input, now)?;
        Ok(call_id)
    }

    /// Ends the containers of a function whose build step is done.
    pub fn end_build(&mut self, id: &str, now: Now) -> Result<(), Error> {
        self.terminate_function(id, "the build of the image is done", now);
        self.touch();
        Ok(())
    }

    fn new_function(&mut self, app_id: &str, announced: Bytes) -> Function {
        let function = Function { announced, ..Function::new(new_id("fu"), app_id.to_owned()) };
        self.save(&function);
        self.functions.insert(function.id.clone(), function.clone());
        function
    }

    /// Assigns an id to a class.
    pub fn define_class(&mut self, app_id: &str, existing_class_id: &str) -> Result<Class, Error> {
        self.app(app_id)?;
        if let Some(class) = self.classes.get(existing_class_id) {
            return Ok(class.clone());
        }
        let class = Class { id: new_id("cs"), app_id: app_id.to_owned() };
        self.save(&class);
        self.classes.insert(class.id.clone(), class.clone());
        Ok(class)
    }
}

impl Function {
    pub(super) fn new(id: String, app_id: String) -> Self {
        Self {
            id,
            app_id,
            live: None,
            bound_to: None,
            pinned_version: None,
            overrides: Overrides::default(),
            ports: BTreeMap::new(),
            announced: Bytes::new(),
        }
    }
}

impl Definition {
    /// The most calls, or batches of calls, that one container runs at a time.
    pub fn concurrency(&self) -> usize {
        self.function.max_concurrent_inputs.max(1) as usize
    }

    /// The target number of calls of one container, as long as there may be more containers.
    pub fn target_concurrency(&self) -> usize {
        match self.function.target_concurrent_inputs as usize {
            0 => self.concurrency(),
            target => target.min(self.concurrency()),
        }
    }

    /// The most inputs that one call of the function's code takes.
    pub fn batch_size(&self) -> usize {
        self.function.batch_max_size.max(1) as usize
    }

    /// The parameters of a class, if it declares them.
    pub fn parameters(&self) -> Vec<pb::ClassParameterSpec> {
        let info = pb::ClassParameterInfo::decode(self.function.class_parameter_info.clone()).unwrap_or_default();
        info.schema
    }

    /// Whether it cannot run before it is bound to parameters.
    pub fn needs_params(&self) -> bool {
        self.bound_from.is_none() && self.parameters().iter().any(|parameter| !parameter.has_default)
    }

    /// The ports of this machine on which its container listens.
    pub fn own_ports(&self) -> impl Iterator<Item = u32> {
        let methods = self.function.method_definitions.values().map(|method| &method.webhook_config);
        let configs = methods.chain([&self.function.webhook_config]).flatten();
        let web_servers = configs.filter(|config| config.r#type() == pb::WebhookType::WebServer);
        web_servers.map(|config| config.web_server_port).chain(self.server().map(|config| config.port))
    }

    /// Whether its container listens on a port of this machine.
    pub fn has_own_port(&self) -> bool {
        self.own_ports().next().is_some()
    }
}
