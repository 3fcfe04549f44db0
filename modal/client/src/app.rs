//! Apps.

use modal_proto::{
    AppGetByDeploymentNameRequest, AppGetOrCreateRequest, AppStopRequest, AppStopSource, ObjectCreationType,
};

use crate::{
    error::{Result, found},
    wire::{Client, rpc},
};

impl Client {
    /// Makes sure that an App of this name exists; gives its id.
    pub async fn get_or_create_app(&self, name: &str) -> Result<String> {
        let request = AppGetOrCreateRequest {
            app_name: name.to_owned(),
            object_creation_type: ObjectCreationType::CreateIfMissing.into(),
            environment_name: self.environment_name(),
        };
        Ok(rpc!(self, app_get_or_create, request)?.app_id)
    }

    /// Stops the deployed App of this name: its schedules, calls and containers end. Tells whether there was one.
    pub async fn stop_app(&self, name: &str) -> Result<bool> {
        let request =
            AppGetByDeploymentNameRequest { name: name.to_owned(), environment_name: self.environment_name() };
        let app = found(rpc!(self, app_get_by_deployment_name, request))?;
        let Some(app_id) = app.map(|app| app.app_id).filter(|id| !id.is_empty()) else { return Ok(false) };
        let request = AppStopRequest { app_id, source: AppStopSource::PythonClient.into() };
        Ok(found(rpc!(self, app_stop, request))?.is_some())
    }
}
