//! The handshake, the workspace and environments. There is one workspace.

use modal_proto as pb;

use super::Parts;
use crate::{
    error::Error,
    state::{Creation, Environment, environment},
};

/// The version of the image builder that clients are told to use. Recipes are not built by it here, so any known
/// version will do.
pub const IMAGE_BUILDER: &str = "2025.06";
/// The name of the workspace and of its only user.
pub const WORKSPACE: &str = "local";

/// When something was created, and by the only user.
pub fn creation_info(created_at: f64) -> pb::CreationInfo {
    pb::CreationInfo { created_at, created_by: WORKSPACE.to_owned() }
}

pub fn hello() -> pb::ClientHelloResponse {
    pb::ClientHelloResponse { image_builder_version: IMAGE_BUILDER.to_owned(), ..Default::default() }
}

pub fn workspace() -> pb::WorkspaceNameLookupResponse {
    pb::WorkspaceNameLookupResponse { workspace_name: WORKSPACE.to_owned(), username: WORKSPACE.to_owned() }
}

pub fn token_info() -> pb::TokenInfoGetResponse {
    let user = pb::UserIdentity { user_id: WORKSPACE.to_owned(), username: WORKSPACE.to_owned() };
    pb::TokenInfoGetResponse {
        token_id: "any".to_owned(),
        workspace_id: WORKSPACE.to_owned(),
        workspace_name: WORKSPACE.to_owned(),
        identity: Some(pb::token_info_get_response::Identity::UserIdentity(user)),
        token_name: "Local Modal takes any token".to_owned(),
    }
}

pub async fn get_environment(
    shared: &Parts,
    request: &pb::EnvironmentGetOrCreateRequest,
) -> Result<pb::EnvironmentGetOrCreateResponse, Error> {
    let name = shared
        .change(|state, now| {
            let existing = state.environment(&request.deployment_name).ok();
            let name = environment(&request.deployment_name);
            match Creation::decide("Environment", name, request.object_creation_type, existing)? {
                Creation::Existing(name) | Creation::Overwrite(name) => Ok(name),
                Creation::Named => state.create_environment(name, now).map(|()| name.to_owned()),
                Creation::Anonymous { .. } => {
                    Err(Error::invalid("object_creation_type", "an environment can only be looked up or created"))
                }
            }
        })
        .await?;
    let settings = pb::EnvironmentSettings { image_builder_version: IMAGE_BUILDER.to_owned(), ..Default::default() };
    Ok(pb::EnvironmentGetOrCreateResponse {
        environment_id: shared.read(|state| state.environment_id(&name)),
        metadata: Some(pb::EnvironmentMetadata { name, settings: Some(settings) }),
    })
}

pub async fn create_environment(shared: &Parts, request: &pb::EnvironmentCreateRequest) -> Result<(), Error> {
    shared.change(|state, now| state.create_environment(&request.name, now)).await
}

pub async fn update_environment(
    shared: &Parts,
    request: &pb::EnvironmentUpdateRequest,
) -> Result<pb::EnvironmentListItem, Error> {
    let (name, suffix) = (request.name.as_deref(), request.web_suffix.as_deref());
    let updated = shared.change(|state, _| state.update_environment(&request.current_name, name, suffix)).await?;
    Ok(item(&updated))
}

pub async fn delete_environment(shared: &Parts, request: &pb::EnvironmentDeleteRequest) -> Result<(), Error> {
    let volumes = shared.change(|state, now| state.delete_environment(&request.name, now)).await?;
    for volume_id in volumes {
        shared.volumes.delete(&volume_id).await?;
    }
    Ok(())
}

pub fn list_environments(shared: &Parts) -> pb::EnvironmentListResponse {
    let main = environment("");
    let default = pb::EnvironmentListItem {
        name: main.to_owned(),
        default: true,
        environment_id: format!("en-{main}"),
        ..Default::default()
    };
    let others = shared.read(|state| state.environments.values().map(item).collect::<Vec<_>>());
    pb::EnvironmentListResponse { items: [vec![default], others].concat() }
}

fn item(environment: &Environment) -> pb::EnvironmentListItem {
    pb::EnvironmentListItem {
        name: environment.name.clone(),
        webhook_suffix: environment.web_suffix.clone(),
        created_at: environment.created_at,
        default: false,
        environment_id: environment.id.clone(),
    }
}
