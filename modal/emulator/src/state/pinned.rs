//! Pinned functions: those of one version of an app, which later deployments do not change.

use modal_proto as pb;
use sha2::{Digest, Sha256};

use super::{Definition, Function, State, binding::bind};
use crate::error::Error;

impl State {
    /// The function of an app in a version, with its own containers. The same request always returns the same one, as
    /// long as the app can roll back to the version.
    pub fn pin_function(
        &mut self,
        app_name: &str,
        environment_name: &str,
        tag: &str,
        number: i32,
    ) -> Result<Function, Error> {
        let app = self.deployed_app(app_name, environment_name).ok_or_else(|| Error::not_found("App", app_name))?;
        let (app_id, shown) = (app.id.clone(), format!("{app_name} v{number}"));
        let version = u32::try_from(number).ok().and_then(|number| self.version(&app_id, number));
        let version = version.ok_or_else(|| Error::not_found("App version", &shown))?;
        let base_id = version.function_ids.get(tag);
        let base_id = base_id.ok_or_else(|| Error::not_found("Function", format!("{app_name}/{tag} of v{number}")))?;
        let definition = version.definition_ids.get(base_id).and_then(|id| self.definitions.get(id));
        let too_old = Error::Conflict { kind: "App version", id: shown, reason: "is too old: its code was removed" };
        let (definition, pinned_version) = (definition.ok_or(too_old)?.clone(), Some(version.number));
        let id = pinned_id(&app_id, version.number, base_id);
        if let Some(function) = self.functions.get(&id) {
            return Ok(function.clone());
        }
        // Nothing changes, except that no containers are kept warm: those are for the live definition.
        let bound = bind(&definition, &id, &pb::FunctionBindParamsRequest::default())?;
        let definition = Definition { bound_from: None, ..bound };
        let function =
            Function { live: Some(definition.id.clone()), pinned_version, ..Function::new(id.clone(), app_id) };
        self.save(&definition);
        self.definitions.insert(definition.id.clone(), definition.into());
        self.save(&function);
        self.functions.insert(id, function.clone());
        Ok(function)
    }

    /// Whether a function that its app does not list is pinned, or bound to a pinned one, and its version still has its
    /// code.
    pub(super) fn is_kept_by_pin(&self, function: &Function) -> bool {
        let version = self.pinned_version_of(function).and_then(|number| self.version(&function.app_id, number));
        version.is_some_and(|version| !version.definition_ids.is_empty())
    }

    /// The layout of the app that containers of a function see: for a pinned one, that of its version.
    pub fn layout_for(&self, function_id: &str) -> Result<pb::AppLayout, Error> {
        let function = self.function(function_id)?;
        let version = self.pinned_version_of(function).and_then(|number| self.version(&function.app_id, number));
        let Some(version) = version else { return self.layout(&function.app_id) };
        let find = |id: &String| {
            // A later version may have dropped it.
            let function = self.functions.get(id).cloned();
            let function = function.unwrap_or_else(|| Function::new(id.clone(), version.app_id.clone()));
            Some(Function { live: version.definition_ids.get(id).cloned(), ..function })
        };
        Ok(self.layout_of(&version.function_ids, &version.class_ids, find))
    }

    fn pinned_version_of(&self, function: &Function) -> Option<u32> {
        self.functions.get(function.base_id())?.pinned_version
    }
}

fn pinned_id(app_id: &str, number: u32, base_id: &str) -> String {
    let digest = Sha256::digest(format!("{app_id}/{number}/{base_id}"));
    format!("fu-{}", &hex::encode(digest)[..32])
}
