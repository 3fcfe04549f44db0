//! Proxy tokens: the keys to web functions that require one. They are valid in every environment.

use modal_proto as pb;

use super::Parts;
use crate::{error::Error, state::ProxyToken};

pub async fn create(shared: &Parts, request: pb::WebhookTokenCreateRequest) -> Result<pb::TokenCreateResponse, Error> {
    let (token, token_secret) = shared.change(|state, now| Ok(state.create_proxy_token(&request.name, now))).await?;
    Ok(pb::TokenCreateResponse { token_id: token.id, token_secret })
}

pub async fn update(shared: &Parts, request: pb::WebhookTokenUpdateRequest) -> Result<pb::WebhookToken, Error> {
    let token = shared.change(|state, _| state.rename_proxy_token(&request.token_id, request.name)).await?;
    Ok(describe(&token))
}

pub async fn delete(shared: &Parts, request: pb::TokenDeleteRequest) -> Result<(), Error> {
    shared.change(|state, _| state.delete_proxy_token(&request.token_id)).await
}

pub fn list(shared: &Parts) -> pb::WebhookTokenListResponse {
    pb::WebhookTokenListResponse { tokens: shared.read(|state| state.proxy_tokens.values().map(describe).collect()) }
}

fn describe(token: &ProxyToken) -> pb::WebhookToken {
    pb::WebhookToken {
        token_id: token.id.clone(),
        created_at: token.created_at,
        scoped: false,
        name: token.name.clone(),
    }
}
