//! Apps.

use modal_proto::{self as pb, AppState};

use super::{Parts, session::WORKSPACE};
use crate::{
    endpoints,
    error::Error,
    images,
    state::{App, Creation, Version},
};

pub async fn create(shared: &Parts, request: pb::AppCreateRequest) -> Result<pb::AppCreateResponse, Error> {
    let state = AppState::try_from(request.app_state).unwrap_or(AppState::Unspecified);
    if !matches!(state, AppState::Initializing | AppState::Ephemeral | AppState::Detached) {
        return Err(Error::invalid("app_state", "an app begins as initializing, ephemeral or detached"));
    }
    let app = shared
        .change(|s, now| {
            let app = s.create_app("", &request.description, &request.environment_name, state, now)?;
            s.set_tags(&app.id, request.tags.into_iter().collect())?;
            Ok(app)
        })
        .await?;
    Ok(pb::AppCreateResponse { app_page_url: page_url(&app.id), app_logs_url: page_url(&app.id), app_id: app.id })
}

pub async fn get_or_create(
    shared: &Parts,
    request: pb::AppGetOrCreateRequest,
) -> Result<pb::AppGetOrCreateResponse, Error> {
    let app = shared
        .change(|state, now| {
            let existing = state.deployed_app(&request.app_name, &request.environment_name).map(|a| a.id.clone());
            match Creation::decide("App", &request.app_name, request.object_creation_type, existing)? {
                Creation::Existing(id) => state.app(&id).cloned(),
                Creation::Named => {
                    let (name, environment) = (&request.app_name, &request.environment_name);
                    state.create_app(name, name, environment, AppState::Deployed, now)
                }
                Creation::Anonymous { .. } | Creation::Overwrite(_) => {
                    Err(Error::invalid("object_creation_type", "an app can only be looked up or created"))
                }
            }
        })
        .await?;
    Ok(pb::AppGetOrCreateResponse { handle_metadata: Some(handle_metadata(&app)), app_id: app.id })
}

pub fn get_by_deployment_name(
    shared: &Parts,
    request: &pb::AppGetByDeploymentNameRequest,
) -> pb::AppGetByDeploymentNameResponse {
    shared.read(|state| match state.deployed_app(&request.name, &request.environment_name) {
        // A response without an app is valid, too: the SDK then creates one.
        None => pb::AppGetByDeploymentNameResponse::default(),
        Some(app) => pb::AppGetByDeploymentNameResponse {
            app_id: app.id.clone(),
            environment_name: app.environment.clone(),
            lifecycle: Some(lifecycle(app)),
            ..Default::default()
        },
    })
}

pub fn list(shared: &Parts, request: &pb::AppListRequest) -> pb::AppListResponse {
    let environment = crate::state::environment(&request.environment_name);
    shared.read(|state| {
        let apps = state.apps.values().filter(|app| app.environment == environment);
        let item = |app: &App| pb::app_list_response::AppListItem {
            app_id: app.id.clone(),
            description: app.description.clone(),
            state: app.state,
            created_at: app.created_at,
            stopped_at: app.stopped_at,
            n_running_tasks: i32::try_from(state.tasks_of_app(&app.id).count()).unwrap_or(i32::MAX),
            name: app.name.clone(),
            metadata: Some(handle_metadata(app)),
        };
        pb::AppListResponse { apps: apps.map(item).collect() }
    })
}

pub async fn publish(shared: &Parts, request: pb::AppPublishRequest) -> Result<pb::AppPublishResponse, Error> {
    let app = shared.change(|state, now| state.publish_app(request, now)).await?;
    endpoints::open_all(shared).await;
    Ok(pb::AppPublishResponse {
        url: page_url(&app.id),
        deployed_at: app.deployed_at,
        server_warnings: images::warning(shared, &app.id).into_iter().collect(),
    })
}

pub fn layout(shared: &Parts, request: &pb::AppGetLayoutRequest) -> Result<pb::AppGetLayoutResponse, Error> {
    Ok(pb::AppGetLayoutResponse { app_layout: Some(shared.read(|state| state.layout(&request.app_id))?) })
}

pub async fn heartbeat(shared: &Parts, request: pb::AppHeartbeatRequest) -> Result<(), Error> {
    shared.change(|state, now| state.app_heartbeat(&request.app_id, now)).await
}

pub async fn disconnect(shared: &Parts, request: pb::AppClientDisconnectRequest) -> Result<(), Error> {
    shared.change(|state, now| state.disconnect_app(&request.app_id, now)).await
}

pub async fn stop(shared: &Parts, request: pb::AppStopRequest) -> Result<(), Error> {
    shared.change(|state, now| state.stop_app(&request.app_id, now)).await
}

pub fn lifecycle_of(
    shared: &Parts,
    request: &pb::AppGetLifecycleRequest,
) -> Result<pb::AppGetLifecycleResponse, Error> {
    let lifecycle = shared.read(|state| state.app(&request.app_id).map(lifecycle))?;
    Ok(pb::AppGetLifecycleResponse { lifecycle: Some(lifecycle) })
}

pub fn info(shared: &Parts, request: &pb::AppGetInfoRequest) -> Result<pb::AppGetInfoResponse, Error> {
    let info = shared.read(|state| state.app(&request.app_id).map(handle_metadata))?;
    Ok(pb::AppGetInfoResponse { info: Some(info) })
}

pub async fn set_tags(shared: &Parts, request: pb::AppSetTagsRequest) -> Result<(), Error> {
    shared.change(|state, _| state.set_tags(&request.app_id, request.tags.into_iter().collect())).await
}

pub fn get_tags(shared: &Parts, request: &pb::AppGetTagsRequest) -> Result<pb::AppGetTagsResponse, Error> {
    let tags = shared.read(|state| state.app(&request.app_id).map(|app| app.tags.clone()))?;
    Ok(pb::AppGetTagsResponse { tags: tags.into_iter().collect() })
}

pub fn history(
    shared: &Parts,
    request: &pb::AppDeploymentHistoryRequest,
) -> Result<pb::AppDeploymentHistoryResponse, Error> {
    let entry = |version: &Version| pb::AppDeploymentHistory {
        app_id: version.app_id.clone(),
        version: version.number,
        client_version: version.client_version.clone(),
        deployed_at: version.deployed_at,
        deployed_by: WORKSPACE.to_owned(),
        tag: version.tag.clone(),
        rollback_version: version.rollback_of,
        rollback_allowed: !version.definition_ids.is_empty(),
        commit_info: (!version.commit.is_empty()).then(|| version.commit.clone()),
        deployment_type: version.kind,
    };
    shared.read(|state| {
        let app = state.app(&request.app_id)?;
        Ok(pb::AppDeploymentHistoryResponse {
            app_deployment_histories: state.versions_of(&app.id).map(entry).collect(),
            production_app_version: app.number(),
        })
    })
}

pub async fn roll_back(shared: &Parts, request: &pb::AppRollbackRequest) -> Result<pb::AppRollbackResponse, Error> {
    let app = shared.change(|state, now| state.roll_back(&request.app_id, request.version, now)).await?;
    endpoints::open_all(shared).await;
    Ok(pb::AppRollbackResponse { url: page_url(&app.id), deployed_at: app.deployed_at, server_warnings: Vec::new() })
}

pub async fn roll_over(shared: &Parts, request: &pb::AppRolloverRequest) -> Result<pb::AppRolloverResponse, Error> {
    let app = shared.change(|state, now| state.roll_over(&request.app_id, now)).await?;
    Ok(pb::AppRolloverResponse { url: page_url(&app.id), deployed_at: app.deployed_at, server_warnings: Vec::new() })
}

/// The SDK prints this as the URL of the app's page, which does not exist; so it names the app.
fn page_url(app_id: &str) -> String {
    format!("modal-local://apps/{app_id}")
}

fn lifecycle(app: &App) -> pb::AppLifecycle {
    let by = |at: f64| if at > 0.0 { WORKSPACE.to_owned() } else { String::new() };
    pb::AppLifecycle {
        app_state: app.state,
        created_at: app.created_at,
        created_by: by(app.created_at),
        deployed_at: app.deployed_at,
        deployed_by: by(app.deployed_at),
        version: app.version,
        stopped_at: app.stopped_at,
        stopped_by: by(app.stopped_at),
    }
}

fn handle_metadata(app: &App) -> pb::AppHandleMetadata {
    pb::AppHandleMetadata {
        description: app.description.clone(),
        app_id: app.id.clone(),
        environment_name: app.environment.clone(),
        lifecycle: Some(lifecycle(app)),
        functions: app.function_ids.clone().into_iter().collect(),
        ..Default::default()
    }
}
