//! Hello, workspace and environments. There is one workspace, and every environment exists.

use modal_proto as pb;

use crate::state::environment;

/// The image builder that clients are told to assume; recipes are not built here, so any that they know will do.
pub const IMAGE_BUILDER: &str = "2025.06";
/// The name of the workspace and of its only user.
const WORKSPACE: &str = "local";

pub fn hello() -> pb::ClientHelloResponse {
    pb::ClientHelloResponse { image_builder_version: IMAGE_BUILDER.to_owned(), ..Default::default() }
}

pub fn workspace() -> pb::WorkspaceNameLookupResponse {
    pb::WorkspaceNameLookupResponse { workspace_name: WORKSPACE.to_owned(), username: WORKSPACE.to_owned() }
}

pub fn get_environment(request: &pb::EnvironmentGetOrCreateRequest) -> pb::EnvironmentGetOrCreateResponse {
    let name = environment(&request.deployment_name);
    let settings = pb::EnvironmentSettings { image_builder_version: IMAGE_BUILDER.to_owned(), ..Default::default() };
    pb::EnvironmentGetOrCreateResponse {
        environment_id: format!("en-{name}"),
        metadata: Some(pb::EnvironmentMetadata { name: name.to_owned(), settings: Some(settings) }),
    }
}
