//! Apps.

use modal_proto::{AppGetOrCreateRequest, ObjectCreationType};

use crate::{error::Result, wire::Client, wire::rpc};

impl Client {
    /// Makes sure that an App of this name exists; gives its id.
    pub async fn get_or_create_app(&self, name: &str) -> Result<String> {
        let request = AppGetOrCreateRequest {
            app_name: name.to_owned(),
            object_creation_type: ObjectCreationType::CreateIfMissing.into(),
            ..Default::default()
        };
        Ok(rpc!(self, app_get_or_create, request)?.app_id)
    }
}
