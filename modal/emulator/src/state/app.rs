//! Apps: creation, publication and end.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use modal_proto::AppState;
use serde::{Deserialize, Serialize};

use super::{Class, Definition, Function, Now, State, history::Origin, names::environment};
use crate::{error::Error, ids::new_id, store::Record};

/// How long an ended app is listed, and how many of those.
const ENDED_APPS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
const ENDED_APPS: usize = 100;

/// An app, in any state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct App {
    pub id: String,
    /// The deployment's name; empty until it is deployed.
    pub name: String,
    pub environment: String,
    pub description: String,
    /// `AppState` on the wire.
    pub state: i32,
    pub created_at: f64,
    pub deployed_at: f64,
    pub stopped_at: f64,
    /// How often it was published.
    pub version: i32,
    /// Whether it ends with its last call, because its client is done with it.
    #[serde(default)]
    pub ending: bool,
    /// The live functions and classes, by their tags in the user's code.
    pub function_ids: BTreeMap<String, String>,
    pub class_ids: BTreeMap<String, String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl Record for App {
    const KIND: &'static str = "app";
    fn id(&self) -> &str {
        &self.id
    }
}

impl App {
    /// Whether calls of its functions may run.
    pub fn is_live(&self) -> bool {
        matches!(self.state(), AppState::Deployed | AppState::Ephemeral | AppState::Detached)
    }

    /// Whether it can never run anything again.
    pub fn is_stopped(&self) -> bool {
        self.state() == AppState::Stopped
    }

    /// Its version in the history.
    pub fn number(&self) -> u32 {
        u32::try_from(self.version).unwrap_or_default()
    }

    /// Its state.
    pub fn state(&self) -> AppState {
        AppState::try_from(self.state).unwrap_or(AppState::Unspecified)
    }
}

impl State {
    /// The app of an id.
    pub fn app(&self, id: &str) -> Result<&App, Error> {
        self.apps.get(id).ok_or_else(|| Error::not_found("App", id))
    }

    /// The deployed app of a name, if there is one.
    pub fn deployed_app(&self, name: &str, environment_name: &str) -> Option<&App> {
        let environment = environment(environment_name);
        self.apps.values().find(|a| a.state() == AppState::Deployed && a.name == name && a.environment == environment)
    }

    /// Creates an app. It is live once it is published (or, without functions, at once if `state` says so).
    pub fn create_app(
        &mut self,
        name: &str,
        description: &str,
        environment_name: &str,
        state: AppState,
        now: Now,
    ) -> Result<App, Error> {
        let app = App {
            id: new_id("ap"),
            name: name.to_owned(),
            environment: self.environment(environment_name)?,
            description: description.to_owned(),
            state: state.into(),
            created_at: now.wall,
            deployed_at: 0.0,
            stopped_at: 0.0,
            version: 0,
            ending: false,
            function_ids: BTreeMap::new(),
            class_ids: BTreeMap::new(),
            tags: BTreeMap::new(),
        };
        self.save(&app);
        self.apps.insert(app.id.clone(), app.clone());
        if matches!(state, AppState::Initializing | AppState::Ephemeral) {
            self.heartbeats.insert(app.id.clone(), now.mono);
        }
        Ok(app)
    }

    /// Sets the tags of an app.
    pub fn set_tags(&mut self, id: &str, tags: BTreeMap<String, String>) -> Result<(), Error> {
        let mut app = self.app(id)?.clone();
        app.tags = tags;
        self.save(&app);
        self.apps.insert(app.id.clone(), app);
        Ok(())
    }

    /// Records a heartbeat of the client of an app.
    pub fn app_heartbeat(&mut self, id: &str, now: Now) -> Result<(), Error> {
        self.app(id)?;
        if let Some(heard) = self.heartbeats.get_mut(id) {
            *heard = now.mono;
        }
        Ok(())
    }

    /// Makes the staged definitions live, all at once. Those that are not listed any more end; the others keep their
    /// ids. Containers of older definitions finish their inputs, and schedules start over.
    pub fn publish_app(&mut self, request: modal_proto::AppPublishRequest, now: Now) -> Result<App, Error> {
        let app = self.app(&request.app_id)?;
        if app.is_stopped() {
            return Err(Error::Conflict { kind: "App", id: request.app_id, reason: "is stopped" });
        }
        if request.staged {
            return Err(Error::invalid("deployment", "one that is staged only is not available here"));
        }
        let (id, environment, old_state) = (app.id.clone(), app.environment.clone(), app.state);
        for function_id in request.function_ids.values() {
            self.function(function_id)?;
        }
        if !request.name.is_empty()
            && let Some(other) = self.deployed_app(&request.name, &environment).map(|a| a.id.clone())
            && other != id
        {
            self.stop_app(&other, now)?;
        }
        let origin = Origin::of(&request);
        self.activate(&request.function_ids, &request.definition_ids)?;
        self.drop_objects(
            &id,
            |object_id| !request.function_ids.values().chain(request.class_ids.values()).any(|live| live == object_id),
            now,
        );
        let mut app = self.app(&id)?.clone();
        app.state = if request.app_state == AppState::Unspecified as i32 { old_state } else { request.app_state };
        app.name = request.name;
        app.deployed_at = now.wall;
        app.version += 1;
        app.function_ids = request.function_ids.into_iter().collect();
        app.class_ids = request.class_ids.into_iter().collect();
        if !request.tags.is_empty() {
            app.tags = request.tags.into_iter().collect();
        }
        if app.state() != AppState::Ephemeral {
            self.heartbeats.remove(&id);
        }
        self.save(&app);
        self.apps.insert(id.clone(), app.clone());
        if app.state() == AppState::Deployed {
            self.add_version(&app, origin);
        }
        self.install_schedules(&id, now);
        self.touch();
        Ok(app)
    }

    /// Points each function at its new definition and retires the containers of the old one.
    fn activate(
        &mut self,
        function_ids: &HashMap<String, String>,
        definition_ids: &HashMap<String, String>,
    ) -> Result<(), Error> {
        for function_id in function_ids.values() {
            let Some(definition_id) = definition_ids.get(function_id) else { continue };
            if !self.definitions.contains_key(definition_id) {
                return Err(Error::not_found("Function definition", definition_id));
            }
        }
        for function_id in function_ids.values() {
            let Some(definition_id) = definition_ids.get(function_id) else { continue };
            let mut function = self.function(function_id)?.clone();
            function.live = Some(definition_id.clone());
            self.save(&function);
            self.functions.insert(function_id.clone(), function);
            let kept = self.definitions_in_history();
            self.drop_definitions(|d| d.function_id == *function_id && d.id != *definition_id && !kept.contains(&d.id));
            self.retire_others(function_id, definition_id);
            self.rebind(function_id);
            self.reset_autoscaler(function_id);
        }
        Ok(())
    }

    /// Retires the containers of a function that run another definition than this one.
    pub(super) fn retire_others(&mut self, function_id: &str, definition_id: &str) {
        self.health.remove(function_id);
        let mut is_serving = false;
        for task in self.tasks.values_mut() {
            if task.definition.function_id == function_id && task.definition.id != definition_id {
                is_serving |= task.definition.server().is_some() && task.stop.is_none();
                task.retire();
            }
        }
        if is_serving {
            self.request_container(function_id);
        }
    }

    pub(super) fn drop_definitions(&mut self, matches: impl Fn(&Definition) -> bool) {
        let ids: Vec<String> = self.definitions.values().filter(|d| matches(d)).map(|d| d.id.clone()).collect();
        for id in ids {
            self.definitions.remove(&id);
            self.forget::<Definition>(&id);
        }
    }

    /// Removes the functions and classes of an app for which `gone` holds, and ends their waiting calls.
    fn drop_objects(&mut self, app_id: &str, gone: impl Fn(&str) -> bool, now: Now) {
        let functions =
            self.functions.values().filter(|f| f.app_id == app_id && gone(f.base_id()) && !self.is_kept_by_pin(f));
        let functions: Vec<String> = functions.map(|f| f.id.clone()).collect();
        for id in &functions {
            self.terminate_function(id, "the function is no longer part of its app", now);
            self.schedules.remove(id);
            self.forget::<super::Schedule>(id);
            let kept = self.definitions_in_history();
            self.drop_definitions(|d| d.function_id == *id && !kept.contains(&d.id));
            self.functions.remove(id);
            self.forget::<Function>(id);
        }
        let classes: Vec<String> =
            self.classes.values().filter(|c| c.app_id == app_id && gone(&c.id)).map(|c| c.id.clone()).collect();
        for id in &classes {
            self.classes.remove(id);
            self.forget::<Class>(id);
        }
    }

    /// Forgets apps that ended long ago, and the oldest if there are too many, except those that something refers to.
    pub(super) fn forget_old_apps(&mut self, now: Now) {
        let mut used: BTreeSet<&str> = self.calls.values().map(|call| call.app_id.as_str()).collect();
        used.extend(self.tasks.values().map(|task| task.definition.app_id.as_str()));
        let mut ended: Vec<&App> = self.apps.values().filter(|a| a.is_stopped() && !used.contains(&*a.id)).collect();
        ended.sort_by(|one, other| one.stopped_at.total_cmp(&other.stopped_at));
        let surplus = ended.len().saturating_sub(ENDED_APPS);
        let old: Vec<String> = ended
            .iter()
            .enumerate()
            .filter(|(n, app)| *n < surplus || app.stopped_at + ENDED_APPS_KEPT.as_secs_f64() < now.wall)
            .map(|(_, app)| app.id.clone())
            .collect();
        for id in old {
            self.forget_versions(&id);
            self.apps.remove(&id);
            self.forget::<App>(&id);
        }
    }

    /// Ends an app: its schedules, its waiting calls and its containers.
    pub fn stop_app(&mut self, id: &str, now: Now) -> Result<(), Error> {
        let mut app = self.app(id)?.clone();
        if app.is_stopped() {
            return Ok(());
        }
        app.state = AppState::Stopped.into();
        app.stopped_at = now.wall;
        self.heartbeats.remove(id);
        self.save(&app);
        self.apps.insert(id.to_owned(), app);
        self.forget_code_of_versions(id);
        self.drop_objects(id, |_| true, now);
        self.drop_definitions(|d| d.app_id == id);
        self.touch();
        Ok(())
    }

    /// Ends apps whose client is done with them and whose calls have ended.
    pub(super) fn end_finished_apps(&mut self, now: Now) {
        let ending = self.apps.values().filter(|app| app.ending && !app.is_stopped());
        let busy = |app: &App| {
            let functions = self.inputs.values().filter_map(|input| self.functions.get(&input.function_id));
            functions.into_iter().any(|function| function.app_id == app.id)
        };
        let finished: Vec<String> = ending.filter(|app| !busy(app)).map(|app| app.id.clone()).collect();
        for id in finished {
            if let Err(error) = self.stop_app(&id, now) {
                tracing::warn!(app.id = id, %error, "an app whose calls have ended could not be ended");
            }
        }
    }

    /// Handles the disconnection of an app's client. An app that is not deployed ends, or if it is detached, ends after
    /// its calls. A deployment that was not published leaves no trace. A deployed app stays.
    pub fn disconnect_app(&mut self, id: &str, now: Now) -> Result<(), Error> {
        let app = self.app(id)?;
        match app.state() {
            AppState::Initializing | AppState::Ephemeral => self.stop_app(id, now),
            // The client sends this only when its code has ended; one that was killed sends nothing.
            AppState::Detached => {
                let app = App { ending: true, ..app.clone() };
                self.save(&app);
                self.apps.insert(app.id.clone(), app);
                self.touch();
                Ok(())
            }
            _ => {
                let live: Vec<String> = self.functions.values().filter_map(|f| f.live.clone()).collect();
                let kept = self.definitions_in_history();
                self.drop_definitions(|d| d.app_id == id && !live.contains(&d.id) && !kept.contains(&d.id));
                Ok(())
            }
        }
    }
}
