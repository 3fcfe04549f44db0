//! Secrets. Only containers get their values; no response has one.

use modal_proto as pb;

use super::{Parts, page, session::creation_info};
use crate::{error::Error, state::Secret};

pub async fn get_or_create(
    shared: &Parts,
    request: pb::SecretGetOrCreateRequest,
) -> Result<pb::SecretGetOrCreateResponse, Error> {
    let secret = shared.change(|state, now| state.get_or_create_secret(&request, now)).await?;
    Ok(pb::SecretGetOrCreateResponse { metadata: Some(metadata(&secret)), secret_id: secret.id })
}

pub fn list(shared: &Parts, request: &pb::SecretListRequest) -> pb::SecretListResponse {
    let environment = crate::state::environment(&request.environment_name).to_owned();
    let item = |secret: &Secret| pb::SecretListItem {
        label: secret.name.clone(),
        created_at: secret.created_at,
        environment_name: secret.environment.clone(),
        secret_id: secret.id.clone(),
        metadata: Some(metadata(secret)),
        ..Default::default()
    };
    let items = shared.read(|state| {
        let named = state.secrets.values().filter(|s| !s.name.is_empty() && s.environment == environment);
        page(named, request.pagination, |secret| secret.created_at).into_iter().map(item).collect()
    });
    pb::SecretListResponse { items, environment_name: environment }
}

pub async fn delete(shared: &Parts, request: pb::SecretDeleteRequest) -> Result<(), Error> {
    shared.change(|state, _| state.delete_secret(&request.secret_id)).await
}

pub fn info(shared: &Parts, request: &pb::SecretGetInfoRequest) -> Result<pb::SecretGetInfoResponse, Error> {
    let metadata = shared.read(|state| state.secret(&request.secret_id).map(metadata))?;
    Ok(pb::SecretGetInfoResponse { metadata: Some(metadata) })
}

pub async fn update(shared: &Parts, request: pb::SecretUpdateRequest) -> Result<(), Error> {
    let updates = request.updates.into_iter().map(|update| (update.key, update.value));
    shared.change(|state, _| state.update_secret(&request.secret_id, updates)).await
}

fn metadata(secret: &Secret) -> pb::SecretMetadata {
    pb::SecretMetadata {
        name: secret.name.clone(),
        creation_info: Some(creation_info(secret.created_at)),
        keys: secret.variables.keys().cloned().collect(),
        environment_name: secret.environment.clone(),
        ..Default::default()
    }
}
