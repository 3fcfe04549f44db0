//! Functions, their definitions and classes, and how they are described to clients and containers.
//!
//! A function is an id that stays over redeployments; a definition is what one `FunctionCreate` said about it. A new
//! definition is only staged: it becomes live when its app is published.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use modal_proto as pb;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{App, Now, State};
use crate::{error::Error, ids::new_id, store::Record};

/// Arguments and results up to this size travel inside the messages instead of as blobs.
pub const MAX_OBJECT_BYTES: u64 = 100 << 20;

/// A function of an app.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Function {
    pub id: String,
    pub app_id: String,
    /// The definition that calls run, once its app is published.
    pub live: Option<String>,
    /// An encoded [`pb::Function`] with what is known before the first definition.
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

/// One definition of a function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Definition {
    pub id: String,
    pub function_id: String,
    pub app_id: String,
    /// The SDK's `Function` message, byte for byte; containers get it as it came.
    #[serde(skip)]
    pub encoded: Bytes,
    /// What of it is read here.
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

/// A class; what runs is its service function.
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

    /// The live definition of a function, if its app is published and runs; a function that builds an image runs before.
    pub fn live_definition(&self, function_id: &str) -> Option<&Arc<Definition>> {
        let function = self.functions.get(function_id)?;
        let definition = self.definitions.get(function.live.as_ref()?)?;
        let app = self.apps.get(&function.app_id)?;
        let runs = app.is_live() || (definition.function.is_builder_function && !app.is_stopped());
        runs.then_some(definition)
    }

    /// Gives a function its id before it is defined.
    pub fn announce_function(&mut self, request: pb::FunctionPrecreateRequest) -> Result<Function, Error> {
        self.app(&request.app_id)?;
        if let Some(function) = self.functions.get(&request.existing_function_id) {
            return Ok(function.clone());
        }
        let announced = pb::Function {
            function_name: request.function_name,
            function_type: request.function_type,
            method_definitions: request.method_definitions,
            function_schema: request.function_schema,
            supported_input_formats: request.supported_input_formats,
            supported_output_formats: request.supported_output_formats,
            ..Default::default()
        };
        let function = self.new_function(&request.app_id, announced.encode_to_vec().into());
        Ok(function)
    }

    /// Stages a definition of a function.
    pub fn define_function(
        &mut self,
        app_id: &str,
        existing_function_id: &str,
        encoded: Bytes,
    ) -> Result<Arc<Definition>, Error> {
        let function =
            pb::Function::decode(encoded.clone()).map_err(|error| Error::invalid("Function", error.to_string()))?;
        self.app(app_id)?;
        let function_id = match self.functions.get(existing_function_id) {
            Some(existing) => existing.id.clone(),
            None => self.new_function(app_id, encoded.clone()).id,
        };
        let definition = Definition { id: new_id("de"), function_id, app_id: app_id.to_owned(), encoded, function };
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

    /// Calls a function that is a step of an image's build. A call of an earlier build, which was cut off, ends.
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
        let call_id = self.begin_call(id, pb::FunctionCallInvocationType::Sync.into(), None, now)?;
        self.add_input(&call_id, 0, input, now)?;
        Ok(call_id)
    }

    /// Ends the containers of a function whose step is done.
    pub fn end_build(&mut self, id: &str, now: Now) -> Result<(), Error> {
        self.terminate_function(id, "the build of the image is done", now);
        self.touch();
        Ok(())
    }

    fn new_function(&mut self, app_id: &str, announced: Bytes) -> Function {
        let function = Function { id: new_id("fu"), app_id: app_id.to_owned(), live: None, announced };
        self.save(&function);
        self.functions.insert(function.id.clone(), function.clone());
        function
    }

    /// Gives a class its id.
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

    /// What a client has to know of a function to call it: of its live definition, or of what was announced.
    pub fn handle_metadata(&self, function: &Function) -> pb::FunctionHandleMetadata {
        match function.live.as_ref().and_then(|id| self.definitions.get(id)) {
            Some(definition) => definition.handle_metadata(),
            None => {
                let announced = pb::Function::decode(function.announced.clone()).unwrap_or_default();
                describe(&announced, &function.id, &function.app_id, "")
            }
        }
    }

    /// What a client has to know of a class: its service function has the class's tag with `.*` added.
    pub fn class_metadata(&self, app: &App, tag: &str) -> pb::ClassHandleMetadata {
        let service = app.function_ids.get(&format!("{tag}.*")).and_then(|id| self.functions.get(id));
        pb::ClassHandleMetadata {
            methods: Vec::new(),
            class_function_id: service.map(|f| f.id.clone()).unwrap_or_default(),
            class_function_metadata: service.map(|f| self.handle_metadata(f)),
        }
    }

    /// Every object of an app, and everything its functions depend on: a container looks each of those up.
    pub fn layout(&self, app_id: &str) -> Result<pb::AppLayout, Error> {
        let app = self.app(app_id)?;
        let mut objects = Vec::new();
        let mut dependencies = BTreeSet::new();
        for function in app.function_ids.values().filter_map(|id| self.functions.get(id)) {
            let metadata = pb::object::HandleMetadataOneof::FunctionHandleMetadata(self.handle_metadata(function));
            objects.push(pb::Object { object_id: function.id.clone(), handle_metadata_oneof: Some(metadata) });
            if let Some(definition) = function.live.as_ref().and_then(|id| self.definitions.get(id)) {
                dependencies.extend(definition.function.object_dependencies.iter().map(|d| d.object_id.clone()));
            }
        }
        for (tag, id) in &app.class_ids {
            let metadata = pb::object::HandleMetadataOneof::ClassHandleMetadata(self.class_metadata(app, tag));
            objects.push(pb::Object { object_id: id.clone(), handle_metadata_oneof: Some(metadata) });
        }
        for object in &objects {
            dependencies.remove(&object.object_id);
        }
        objects.extend(dependencies.into_iter().map(|id| self.dependency(id)));
        Ok(pb::AppLayout {
            objects,
            function_ids: app.function_ids.clone().into_iter().collect(),
            class_ids: app.class_ids.clone().into_iter().collect(),
        })
    }

    fn dependency(&self, object_id: String) -> pb::Object {
        use pb::object::HandleMetadataOneof as Metadata;
        let metadata = if let Some(volume) = self.volumes.get(&object_id) {
            Some(Metadata::VolumeMetadata(volume.metadata()))
        } else if self.mounts.contains_key(&object_id) {
            Some(Metadata::MountHandleMetadata(pb::MountHandleMetadata::default()))
        } else {
            self.functions.get(&object_id).map(|f| Metadata::FunctionHandleMetadata(self.handle_metadata(f)))
        };
        pb::Object { object_id, handle_metadata_oneof: metadata }
    }
}

impl Definition {
    /// The definition as clients see it.
    pub fn handle_metadata(&self) -> pb::FunctionHandleMetadata {
        describe(&self.function, &self.function_id, &self.app_id, &self.id)
    }

    /// The form of a definition that lists its alternatives; here there is always one.
    pub fn function_data(&self) -> pb::FunctionData {
        pb::FunctionData {
            module_name: self.function.module_name.clone(),
            function_name: self.function.function_name.clone(),
            function_type: self.function.function_type,
            web_url: self.function.web_url.clone(),
            schedule: self.function.schedule.clone(),
            ranked_functions: vec![pb::function_data::RankedFunction { rank: 0, function: self.encoded.clone() }],
        }
    }

    /// Most inputs that one container runs at a time.
    pub fn concurrency(&self) -> usize {
        self.function.max_concurrent_inputs.max(1) as usize
    }
}

fn describe(function: &pb::Function, id: &str, app_id: &str, definition_id: &str) -> pb::FunctionHandleMetadata {
    let methods = function.method_definitions.iter().map(|(name, method)| {
        let metadata = pb::FunctionHandleMetadata {
            function_name: method.function_name.clone(),
            function_type: method.function_type,
            is_method: true,
            use_method_name: name.clone(),
            function_schema: method.function_schema.clone(),
            supported_input_formats: method.supported_input_formats.clone(),
            supported_output_formats: method.supported_output_formats.clone(),
            app_id: app_id.to_owned(),
            max_object_size_bytes: Some(MAX_OBJECT_BYTES),
            max_async_object_size_bytes: Some(MAX_OBJECT_BYTES),
            ..Default::default()
        };
        (name.clone(), metadata)
    });
    pb::FunctionHandleMetadata {
        function_name: function.function_name.clone(),
        function_type: function.function_type,
        web_url: function.web_url.clone(),
        is_method: function.is_method,
        definition_id: definition_id.to_owned(),
        class_parameter_info: function.class_parameter_info.clone(),
        method_handle_metadata: methods.collect(),
        function_schema: function.function_schema.clone(),
        max_object_size_bytes: Some(MAX_OBJECT_BYTES),
        max_async_object_size_bytes: Some(MAX_OBJECT_BYTES),
        supported_input_formats: function.supported_input_formats.clone(),
        supported_output_formats: function.supported_output_formats.clone(),
        app_id: app_id.to_owned(),
        base_function_id: id.to_owned(),
        ..Default::default()
    }
}
