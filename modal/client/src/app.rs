//! Apps.

use modal_proto::{
    AppGetByDeploymentNameRequest, AppGetLifecycleRequest, AppGetOrCreateRequest, AppListRequest, AppState,
    AppStopRequest, AppStopSource, ObjectCreationType,
};

use crate::{
    error::{Result, found},
    wire::{Client, rpc},
};

impl Client {
    /// Creates an App of this name if it does not exist; returns its id.
    ///
    /// # Errors
    /// [`crate::Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn get_or_create_app(&self, name: &str) -> Result<String> {
        let request = AppGetOrCreateRequest {
            app_name: name.to_owned(),
            object_creation_type: ObjectCreationType::CreateIfMissing.into(),
            environment_name: self.environment_name(),
        };
        Ok(rpc!(self, app_get_or_create, request)?.app_id)
    }

    /// The names of the Apps that are deployed.
    ///
    /// # Errors
    /// [`crate::Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn deployed_apps(&self) -> Result<Vec<String>> {
        let request = AppListRequest { environment_name: self.environment_name() };
        let apps = rpc!(self, app_list, request)?.apps;
        Ok(apps.into_iter().filter(|app| app.state() == AppState::Deployed).map(|app| app.name).collect())
    }

    /// Stops the deployed App of this name: its schedules, calls and containers end. Returns whether there was one.
    ///
    /// # Errors
    /// [`crate::Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn stop_app(&self, name: &str) -> Result<bool> {
        let request =
            AppGetByDeploymentNameRequest { name: name.to_owned(), environment_name: self.environment_name() };
        let app = found(rpc!(self, app_get_by_deployment_name, request))?;
        match app.map(|app| app.app_id).filter(|id| !id.is_empty()) {
            Some(app_id) => self.stop_app_with_id(&app_id).await,
            None => Ok(false),
        }
    }

    /// Stops an App, whether it is deployed or not. Returns whether there was one.
    ///
    /// # Errors
    /// [`crate::Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn stop_app_with_id(&self, app_id: &str) -> Result<bool> {
        let request = AppStopRequest { app_id: app_id.to_owned(), source: AppStopSource::PythonClient.into() };
        Ok(found(rpc!(self, app_stop, request))?.is_some())
    }

    /// Whether an App exists and is neither stopped nor stopping.
    ///
    /// # Errors
    /// [`crate::Error::Rpc`] if the server cannot be reached or refuses the request.
    pub async fn is_app_running(&self, app_id: &str) -> Result<bool> {
        let request = AppGetLifecycleRequest { app_id: app_id.to_owned() };
        let lifecycle = found(rpc!(self, app_get_lifecycle, request))?.and_then(|answer| answer.lifecycle);
        let is_over = |state| matches!(state, AppState::Stopping | AppState::Stopped);
        Ok(lifecycle.is_some_and(|lifecycle| !is_over(lifecycle.app_state())))
    }
}
