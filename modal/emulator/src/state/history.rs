//! The versions of an app: what each deployment made live, and rollbacks.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use modal_proto::{self as pb, AppState, DeploymentType};
use serde::{Deserialize, Serialize};

use super::{App, Class, Function, Now, State};
use crate::{error::Error, store::Record};

/// Versions of an app that it can roll back to; of older ones only metadata is kept.
const VERSIONS_WITH_CODE: usize = 20;
/// Versions of an app that are listed.
const VERSIONS: usize = 200;

/// One deployment of an app.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Version {
    pub id: String,
    pub app_id: String,
    pub number: u32,
    pub deployed_at: f64,
    pub client_version: String,
    pub tag: String,
    /// `DeploymentType` on the wire.
    pub kind: i32,
    /// The version that this one rolled back to.
    pub rollback_of: u32,
    pub function_ids: BTreeMap<String, String>,
    pub class_ids: BTreeMap<String, String>,
    /// The definition of each function, by the function's id. Empty once a rollback is impossible.
    pub definition_ids: BTreeMap<String, String>,
    /// The state of the repository that it was deployed from, as the SDK sent it.
    #[serde(skip)]
    pub commit: Bytes,
}

impl Record for Version {
    const KIND: &'static str = "version";
    fn id(&self) -> &str {
        &self.id
    }
    fn payload(&self) -> Bytes {
        self.commit.clone()
    }
    fn set_payload(&mut self, payload: Bytes) {
        self.commit = payload;
    }
}

/// Ids of versions sort by app and number.
fn version_id(app_id: &str, number: u32) -> String {
    format!("{app_id}/{number:010}")
}

impl State {
    /// The deployments of an app, newest first.
    pub fn versions_of(&self, app_id: &str) -> impl Iterator<Item = &Version> {
        self.versions.range(version_id(app_id, 0)..=version_id(app_id, u32::MAX)).rev().map(|(_, version)| version)
    }

    /// A version of an app.
    pub fn version(&self, app_id: &str, number: u32) -> Option<&Version> {
        self.versions.get(&version_id(app_id, number))
    }

    /// Records what a deployment made live.
    pub(super) fn add_version(&mut self, app: &App, request: Origin) {
        let live = |id: &String| Some((id.clone(), self.functions.get(id)?.live.clone()?));
        let version = Version {
            id: version_id(&app.id, app.number()),
            app_id: app.id.clone(),
            number: app.number(),
            deployed_at: app.deployed_at,
            client_version: request.client_version,
            tag: request.tag,
            kind: request.kind.into(),
            rollback_of: request.rollback_of,
            function_ids: app.function_ids.clone(),
            class_ids: app.class_ids.clone(),
            definition_ids: app.function_ids.values().filter_map(live).collect(),
            commit: request.commit,
        };
        self.save(&version);
        self.versions.insert(version.id.clone(), version);
        self.forget_old_versions(&app.id);
    }

    fn forget_old_versions(&mut self, app_id: &str) {
        let ids: Vec<String> = self.versions_of(app_id).map(|version| version.id.clone()).collect();
        for id in ids.iter().skip(VERSIONS) {
            self.versions.remove(id);
            self.forget::<Version>(id);
        }
        for id in ids.iter().take(VERSIONS).skip(VERSIONS_WITH_CODE) {
            self.forget_code_of(id);
        }
        let kept = self.definitions_in_history();
        let live: BTreeSet<String> = self.functions.values().filter_map(|f| f.live.clone()).collect();
        self.drop_definitions(|d| d.app_id == app_id && !kept.contains(&d.id) && !live.contains(&d.id));
    }

    /// Forgets all versions of an app.
    pub(super) fn forget_versions(&mut self, app_id: &str) {
        let ids: Vec<String> = self.versions_of(app_id).map(|version| version.id.clone()).collect();
        for id in ids {
            self.versions.remove(&id);
            self.forget::<Version>(&id);
        }
    }

    fn forget_code_of(&mut self, id: &str) {
        let Some(version) = self.versions.get_mut(id).filter(|version| !version.definition_ids.is_empty()) else {
            return;
        };
        version.definition_ids.clear();
        let version = version.clone();
        self.save(&version);
    }

    /// Forgets the definitions that an ended app could have rolled back to.
    pub(super) fn forget_code_of_versions(&mut self, app_id: &str) {
        let ids: Vec<String> = self.versions_of(app_id).map(|version| version.id.clone()).collect();
        for id in ids {
            self.forget_code_of(&id);
        }
    }

    /// The definitions that a rollback could restore.
    pub(super) fn definitions_in_history(&self) -> BTreeSet<String> {
        self.versions.values().flat_map(|version| version.definition_ids.values().cloned()).collect()
    }

    /// Rolls back to a version: `number`, or the one before the current one if it is not positive.
    pub fn roll_back(&mut self, app_id: &str, number: i32, now: Now) -> Result<App, Error> {
        let app = self.deployed(app_id)?.clone();
        let wanted = u32::try_from(number).ok().filter(|number| *number > 0);
        let found = match wanted {
            Some(number) => self.versions.get(&version_id(app_id, number)),
            None => self.versions_of(app_id).find(|version| version.number < app.number()),
        };
        let version = found.cloned().ok_or_else(|| match wanted {
            Some(number) => Error::not_found("App version", format!("v{number}")),
            None => {
                Error::Conflict { kind: "App", id: app.name.clone(), reason: "has no earlier version to roll back to" }
            }
        })?;
        let complete = version.function_ids.values().all(|id| version.definition_ids.contains_key(id));
        if !complete {
            let reason = "is too old to go back to";
            return Err(Error::Conflict { kind: "App version", id: format!("v{}", version.number), reason });
        }
        self.restore_objects(&version);
        let request = pb::AppPublishRequest {
            app_id: app_id.to_owned(),
            name: app.name,
            app_state: AppState::Deployed.into(),
            function_ids: version.function_ids.into_iter().collect(),
            class_ids: version.class_ids.into_iter().collect(),
            definition_ids: version.definition_ids.into_iter().collect(),
            deployment_tag: version.tag,
            client_version: version.client_version,
            commit_info: version.commit,
            rollback_version: version.number,
            deployment_type: DeploymentType::Rollback.into(),
            ..Default::default()
        };
        self.publish_app(request, now)
    }

    /// Restores functions and classes that later deployments dropped, with their ids.
    fn restore_objects(&mut self, version: &Version) {
        for (function_id, definition_id) in &version.definition_ids {
            let Some(definition) = self.definitions.get(definition_id) else { continue };
            if !self.functions.contains_key(function_id) {
                let announced = definition.encoded.clone();
                let function = Function { announced, ..Function::new(function_id.clone(), version.app_id.clone()) };
                self.save(&function);
                self.functions.insert(function_id.clone(), function);
            }
        }
        for class_id in version.class_ids.values() {
            if !self.classes.contains_key(class_id) {
                let class = Class { id: class_id.clone(), app_id: version.app_id.clone() };
                self.save(&class);
                self.classes.insert(class_id.clone(), class);
            }
        }
    }

    /// Replaces the containers of an app by new ones of the same definitions.
    pub fn roll_over(&mut self, app_id: &str, now: Now) -> Result<App, Error> {
        let app = self.deployed(app_id)?;
        let request = pb::AppPublishRequest {
            app_id: app_id.to_owned(),
            name: app.name.clone(),
            app_state: AppState::Deployed.into(),
            function_ids: app.function_ids.clone().into_iter().collect(),
            class_ids: app.class_ids.clone().into_iter().collect(),
            deployment_type: DeploymentType::Rollover.into(),
            ..Default::default()
        };
        let app = self.publish_app(request, now)?;
        self.tasks.values_mut().filter(|task| task.definition.app_id == app_id).for_each(super::Task::retire);
        Ok(app)
    }

    fn deployed(&self, app_id: &str) -> Result<&App, Error> {
        let app = self.app(app_id)?;
        if app.state() != AppState::Deployed {
            return Err(Error::Conflict { kind: "App", id: app_id.to_owned(), reason: "is not deployed" });
        }
        Ok(app)
    }
}

/// The origin of a deployment.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub client_version: String,
    pub tag: String,
    pub kind: DeploymentType,
    pub rollback_of: u32,
    pub commit: Bytes,
}

impl Origin {
    /// The metadata of a publication.
    pub fn of(request: &pb::AppPublishRequest) -> Self {
        let kind = match request.deployment_type() {
            DeploymentType::Unspecified => DeploymentType::Standard,
            kind => kind,
        };
        Self {
            client_version: request.client_version.clone(),
            tag: request.deployment_tag.clone(),
            kind,
            rollback_of: request.rollback_version,
            commit: request.commit_info.clone(),
        }
    }
}
