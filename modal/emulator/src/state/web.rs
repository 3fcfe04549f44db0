//! Web functions: their URLs, their keys and their requests.

use std::time::Instant;

use modal_proto::{self as pb, FunctionCallInvocationType, WebhookConfig, WebhookType, generic_result::GenericStatus};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Call, Definition, Now, State, input::Attempt};
use crate::{
    error::Error,
    ids::{new_id, new_token},
    store::Record,
};

/// A key to web functions that require one.
#[derive(Clone, Serialize, Deserialize)]
pub struct ProxyToken {
    pub id: String,
    pub name: String,
    /// The SHA-256 of the secret, which is shown once and not stored.
    secret_hash: String,
    pub created_at: f64,
}

impl Record for ProxyToken {
    const KIND: &'static str = "proxy-token";
    fn id(&self) -> &str {
        &self.id
    }
}

impl Definition {
    /// Its web methods with their configurations by name; the function itself has an empty name.
    pub fn web_methods(&self) -> impl Iterator<Item = (&str, &WebhookConfig)> {
        let methods = self.function.method_definitions.iter();
        let methods = methods.filter_map(|(name, method)| Some((name.as_str(), method.webhook_config.as_ref()?)));
        let own = self.function.webhook_config.as_ref().map(|config| ("", config));
        own.into_iter().chain(methods).filter(|(_, config)| config.r#type() != WebhookType::Unspecified)
    }

    /// The configuration of a web method.
    pub fn web_method(&self, method: &str) -> Option<&WebhookConfig> {
        self.web_methods().find(|(name, _)| *name == method).map(|(_, config)| config)
    }
}

impl Definition {
    /// Its parts that are reachable over HTTP: its web methods by name, or itself, without a name, if it is a server.
    pub fn endpoint_names(&self) -> impl Iterator<Item = &str> {
        self.web_methods().map(|(name, _)| name).chain(self.server().map(|_| ""))
    }
}

impl State {
    /// The URL of a web method, or an empty text.
    pub fn web_url(&self, function_id: &str, method: &str) -> String {
        let port = self.functions.get(function_id).and_then(|f| f.ports.get(method));
        port.map(|port| format!("http://127.0.0.1:{port}")).unwrap_or_default()
    }

    /// Records the port of a web method.
    pub fn set_port(&mut self, function_id: &str, method: &str, port: u16) -> Result<(), Error> {
        let mut function = self.function(function_id)?.clone();
        if function.ports.insert(method.to_owned(), port) != Some(port) {
            self.save(&function);
            self.functions.insert(function.id.clone(), function);
        }
        Ok(())
    }

    /// Whether a web method or a server is live or staged.
    pub fn has_endpoint(&self, function_id: &str, method: &str) -> bool {
        let mut definitions = self.definitions.values().filter(|d| d.function_id == function_id);
        definitions.any(|definition| definition.endpoint_names().any(|name| name == method))
    }

    /// All live functions that are reachable over HTTP, with the names of their web methods.
    pub fn endpoints(&self) -> Vec<(String, String)> {
        let live = self.functions.values().filter(|f| f.bound_to.is_none() && f.pinned_version.is_none());
        let live = live.filter_map(|f| self.live_definition(&f.id));
        live.flat_map(|d| d.endpoint_names().map(|name| (d.function_id.clone(), name.to_owned()))).collect()
    }

    /// Begins a web request: a call that ends with its connection.
    pub fn begin_request(
        &mut self,
        function_id: &str,
        arguments: pb::FunctionInput,
        now: Now,
    ) -> Result<String, Error> {
        let call = self.new_call(function_id, FunctionCallInvocationType::SyncLegacy.into(), now)?;
        let call = Call { transient: true, ..call };
        let call_id = call.id.clone();
        self.calls.insert(call_id.clone(), call);
        match self.add_input(&call_id, 0, arguments, now) {
            Ok(_) => Ok(call_id),
            Err(error) => {
                self.calls.remove(&call_id);
                Err(error)
            }
        }
    }

    /// Whether a container has taken a web request.
    pub fn is_taken(&self, call_id: &str) -> bool {
        let inputs = self.calls.get(call_id).into_iter().flat_map(|call| &call.unfinished);
        inputs.filter_map(|id| self.inputs.get(id)).all(|input| input.task_id.is_some())
    }

    /// How a web request ended, if it has.
    pub fn request_result(&self, call_id: &str) -> Option<pb::GenericResult> {
        self.calls.get(call_id)?.outputs.first()?.item().result
    }

    /// The client of a web request has disconnected: unless a container has the request, it never runs.
    pub fn abandon_request(&mut self, call_id: &str, now: Now) {
        let Some(call) = self.calls.get(call_id) else { return };
        let is_waiting = |id: &&String| self.inputs.get(*id).is_some_and(|input| input.task_id.is_none());
        let waiting = call.unfinished.iter().filter(is_waiting).cloned().collect();
        let end = Attempt::without_report(GenericStatus::Terminated, "the client went away", now);
        self.finish_waiting(&call.function_id.clone(), &waiting, &end);
    }

    /// Forgets a web request that has ended.
    pub fn forget_request(&mut self, call_id: &str) {
        self.calls.remove(call_id);
    }

    /// Creates a key to web functions; its secret is returned only now.
    pub fn create_proxy_token(&mut self, name: &str, now: Now) -> (ProxyToken, String) {
        let secret = format!("ws-{}", new_token());
        let token =
            ProxyToken { id: new_id("wk"), name: name.to_owned(), secret_hash: hash(&secret), created_at: now.wall };
        self.save(&token);
        self.proxy_tokens.insert(token.id.clone(), token.clone());
        (token, secret)
    }

    /// Renames a key, if it exists.
    pub fn rename_proxy_token(&mut self, id: &str, name: Option<String>) -> Result<ProxyToken, Error> {
        let token = self.proxy_tokens.get(id).ok_or_else(|| Error::not_found("Proxy token", id))?;
        let token = ProxyToken { name: name.unwrap_or_else(|| token.name.clone()), ..token.clone() };
        self.save(&token);
        self.proxy_tokens.insert(token.id.clone(), token.clone());
        Ok(token)
    }

    /// Removes a key to web functions.
    pub fn delete_proxy_token(&mut self, id: &str) -> Result<(), Error> {
        self.proxy_tokens.remove(id).ok_or_else(|| Error::not_found("Proxy token", id))?;
        self.forget::<ProxyToken>(id);
        Ok(())
    }

    /// Whether a key and its secret are valid. Hashes are compared, so that the time it takes reveals nothing.
    pub fn is_proxy_token(&self, id: &str, secret: &str) -> bool {
        self.proxy_tokens.get(id).is_some_and(|token| token.secret_hash == hash(secret))
    }

    /// When a web request that no container takes times out: its function may take that long to start, or to finish
    /// others.
    pub fn request_deadline(definition: &Definition, now: Now) -> Instant {
        let startup = definition.function.startup_timeout_secs.max(LEAST_QUEUE_SECONDS);
        now.mono + std::time::Duration::from_secs(startup.into())
    }
}

/// The least time that a web request waits for a container.
const LEAST_QUEUE_SECONDS: u32 = 150;

fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}
