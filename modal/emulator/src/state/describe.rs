//! The descriptions of functions, classes and apps for clients and containers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use modal_proto as pb;
use prost::Message;

use super::{Definition, Function, State};
use crate::error::Error;

/// Arguments and results up to this size are sent in messages, larger ones as blobs.
const MAX_OBJECT_BYTES: u64 = 2 << 20;
/// The same for calls that nobody waits for. It is smaller, because their results stay in memory for a week.
const MAX_ASYNC_OBJECT_BYTES: u64 = 64 << 10;

/// The tag of the service function of a class.
pub fn service_tag(class_tag: &str) -> String {
    format!("{class_tag}.*")
}

impl State {
    /// The metadata with which a client calls a function: of its live definition, or of its announcement.
    pub fn handle_metadata(&self, function: &Function) -> pb::FunctionHandleMetadata {
        match function.live.as_ref().and_then(|id| self.definitions.get(id)) {
            Some(definition) => self.describe(function, &definition.function, &definition.id),
            None => self.describe(function, &pb::Function::decode(function.announced.clone()).unwrap_or_default(), ""),
        }
    }

    /// The same for a definition, whether or not it is live.
    pub fn definition_metadata(&self, definition: &Definition) -> pb::FunctionHandleMetadata {
        match self.functions.get(&definition.function_id) {
            Some(function) => self.describe(function, &definition.function, &definition.id),
            // It was just removed and cannot be called any more.
            None => pb::FunctionHandleMetadata::default(),
        }
    }

    /// The form of a definition that lists its alternatives; here there is always one.
    pub fn function_data(&self, definition: &Definition) -> pb::FunctionData {
        let function = definition.function.clone();
        pb::FunctionData {
            module_name: function.module_name,
            function_name: function.function_name,
            function_type: function.function_type,
            timeout_secs: function.timeout_secs,
            startup_timeout_secs: function.startup_timeout_secs,
            web_url: self.function_url(&definition.function_id, &definition.function),
            flash_service_urls: self.server_urls(&definition.function_id, &definition.function),
            http_config: function.http_config,
            is_server: function.is_server,
            webhook_config: function.webhook_config,
            is_class: function.is_class,
            class_parameter_info: function.class_parameter_info,
            is_method: function.is_method,
            method_definitions: self.methods_with_urls(definition),
            method_definitions_set: function.method_definitions_set,
            autoscaler_settings: Some(self.autoscaler_settings(definition)),
            schedule: function.schedule,
            ranked_functions: vec![pb::function_data::RankedFunction { rank: 0, function: definition.encoded.clone() }],
        }
    }

    /// A definition as it was sent, with the URLs of its web functions appended: if a field occurs twice, the last one
    /// wins.
    pub fn encoded_with_urls(&self, definition: &Definition) -> Bytes {
        let urls = pb::Function {
            web_url: self.function_url(&definition.function_id, &definition.function),
            flash_service_urls: self.server_urls(&definition.function_id, &definition.function),
            method_definitions: self.methods_with_urls(definition),
            ..Default::default()
        };
        [definition.encoded.as_ref(), &urls.encode_to_vec()].concat().into()
    }

    /// The URL of a web function, or an empty text.
    fn function_url(&self, function_id: &str, defined: &pb::Function) -> String {
        if defined.is_server { String::new() } else { self.web_url(function_id, "") }
    }

    /// The URL of a server, or an empty text.
    fn server_urls(&self, function_id: &str, defined: &pb::Function) -> Vec<String> {
        let url = if defined.is_server { self.web_url(function_id, "") } else { String::new() };
        Vec::from_iter((!url.is_empty()).then_some(url))
    }

    fn methods_with_urls(&self, definition: &Definition) -> std::collections::HashMap<String, pb::MethodDefinition> {
        let with_url = |(name, method): (&String, &pb::MethodDefinition)| {
            let web_url = self.web_url(&definition.function_id, name);
            (name.clone(), pb::MethodDefinition { web_url, ..method.clone() })
        };
        definition.function.method_definitions.iter().map(with_url).collect()
    }

    fn describe(&self, function: &Function, defined: &pb::Function, definition_id: &str) -> pb::FunctionHandleMetadata {
        let methods = defined.method_definitions.iter().map(|(name, method)| {
            let metadata = pb::FunctionHandleMetadata {
                function_name: method.function_name.clone(),
                function_type: method.function_type,
                web_url: self.web_url(&function.id, name),
                is_method: true,
                use_method_name: name.clone(),
                function_schema: method.function_schema.clone(),
                supported_input_formats: method.supported_input_formats.clone(),
                supported_output_formats: method.supported_output_formats.clone(),
                app_id: function.app_id.clone(),
                max_object_size_bytes: Some(MAX_OBJECT_BYTES),
                max_async_object_size_bytes: Some(MAX_ASYNC_OBJECT_BYTES),
                ..Default::default()
            };
            (name.clone(), metadata)
        });
        pb::FunctionHandleMetadata {
            function_name: defined.function_name.clone(),
            function_type: defined.function_type,
            web_url: self.function_url(&function.id, defined),
            experimental_flash_urls: self.server_urls(&function.id, defined),
            is_method: defined.is_method,
            definition_id: definition_id.to_owned(),
            class_parameter_info: defined.class_parameter_info.clone(),
            method_handle_metadata: methods.collect(),
            function_schema: defined.function_schema.clone(),
            max_object_size_bytes: Some(MAX_OBJECT_BYTES),
            max_async_object_size_bytes: Some(MAX_ASYNC_OBJECT_BYTES),
            supported_input_formats: defined.supported_input_formats.clone(),
            supported_output_formats: defined.supported_output_formats.clone(),
            app_id: function.app_id.clone(),
            base_function_id: function.base_id().to_owned(),
            ..Default::default()
        }
    }

    /// The metadata of a class with this service function.
    pub fn class_metadata(&self, service: Option<&Function>) -> pb::ClassHandleMetadata {
        pb::ClassHandleMetadata {
            methods: Vec::new(),
            class_function_id: service.map(|f| f.id.clone()).unwrap_or_default(),
            class_function_metadata: service.map(|f| self.handle_metadata(f)),
        }
    }

    /// Every object of an app, and all dependencies of its functions: a container looks up each of those.
    pub fn layout(&self, app_id: &str) -> Result<pb::AppLayout, Error> {
        let app = self.app(app_id)?;
        let live = |id: &String| self.functions.get(id).cloned();
        Ok(self.layout_of(&app.function_ids, &app.class_ids, live))
    }

    /// The layout of functions and classes by their tags; `find` returns the function of an id.
    pub(super) fn layout_of(
        &self,
        function_ids: &BTreeMap<String, String>,
        class_ids: &BTreeMap<String, String>,
        find: impl Fn(&String) -> Option<Function>,
    ) -> pb::AppLayout {
        let mut objects = Vec::new();
        let mut dependencies = BTreeSet::new();
        for function in function_ids.values().filter_map(&find) {
            let metadata = pb::object::HandleMetadataOneof::FunctionHandleMetadata(self.handle_metadata(&function));
            objects.push(pb::Object { object_id: function.id.clone(), handle_metadata_oneof: Some(metadata) });
            if let Some(definition) = function.live.as_ref().and_then(|id| self.definitions.get(id)) {
                dependencies.extend(definition.function.object_dependencies.iter().map(|d| d.object_id.clone()));
            }
        }
        for (tag, id) in class_ids {
            let service = function_ids.get(&service_tag(tag)).and_then(&find);
            let metadata = pb::object::HandleMetadataOneof::ClassHandleMetadata(self.class_metadata(service.as_ref()));
            objects.push(pb::Object { object_id: id.clone(), handle_metadata_oneof: Some(metadata) });
        }
        for object in &objects {
            dependencies.remove(&object.object_id);
        }
        objects.extend(dependencies.into_iter().map(|id| self.dependency(id)));
        pb::AppLayout {
            objects,
            function_ids: function_ids.clone().into_iter().collect(),
            class_ids: class_ids.clone().into_iter().collect(),
        }
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
