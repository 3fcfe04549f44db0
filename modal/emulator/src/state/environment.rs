//! Environments: namespaces of named objects.

use serde::{Deserialize, Serialize};

use super::{App, Dict, Now, Queue, Secret, State, Volume, names::DEFAULT_ENVIRONMENT};
use crate::{error::Error, ids::new_id, store::Record};

/// The longest name, as on Modal.
const LONGEST_NAME: usize = 64;

/// An environment other than the default one, which always exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Environment {
    pub id: String,
    pub name: String,
    pub web_suffix: String,
    pub created_at: f64,
}

impl Record for Environment {
    const KIND: &'static str = "environment";
    fn id(&self) -> &str {
        &self.id
    }
}

impl State {
    /// The environment that a request means: the default one if it names none.
    pub fn environment(&self, name: &str) -> Result<String, Error> {
        let name = super::environment(name);
        if name == DEFAULT_ENVIRONMENT || self.environments.values().any(|environment| environment.name == name) {
            return Ok(name.to_owned());
        }
        Err(Error::not_found("Environment", name))
    }

    /// The id of an environment.
    pub fn environment_id(&self, name: &str) -> String {
        let found = self.environments.values().find(|environment| environment.name == name);
        found.map_or_else(|| format!("en-{name}"), |environment| environment.id.clone())
    }

    /// Creates an environment.
    pub fn create_environment(&mut self, name: &str, now: Now) -> Result<(), Error> {
        check_name(name)?;
        if self.environment(name).is_ok() {
            return Err(Error::AlreadyExists { kind: "Environment", id: name.to_owned() });
        }
        let environment =
            Environment { id: new_id("en"), name: name.to_owned(), web_suffix: name.to_owned(), created_at: now.wall };
        self.save(&environment);
        self.environments.insert(environment.id.clone(), environment);
        Ok(())
    }

    /// Renames an environment, with all its objects, or changes its suffix.
    pub fn update_environment(
        &mut self,
        name: &str,
        new_name: Option<&str>,
        web_suffix: Option<&str>,
    ) -> Result<Environment, Error> {
        let mut environment = self.own_environment(name)?.clone();
        if let Some(new_name) = new_name.filter(|new_name| *new_name != name) {
            check_name(new_name)?;
            if self.environment(new_name).is_ok() {
                return Err(Error::AlreadyExists { kind: "Environment", id: new_name.to_owned() });
            }
            new_name.clone_into(&mut environment.name);
            self.move_objects(name, new_name);
        }
        if let Some(web_suffix) = web_suffix {
            web_suffix.clone_into(&mut environment.web_suffix);
        }
        self.save(&environment);
        self.environments.insert(environment.id.clone(), environment.clone());
        Ok(environment)
    }

    fn move_objects(&mut self, from: &str, to: &str) {
        macro_rules! move_all {
            ($($objects:ident),*) => {$(
                let ids: Vec<String> =
                    self.$objects.values().filter(|o| o.environment == from).map(|o| o.id.clone()).collect();
                for id in ids {
                    let Some(object) = self.$objects.get_mut(&id) else { continue };
                    to.clone_into(&mut object.environment);
                    self.changes.push(crate::store::Change::put(&*object));
                }
            )*};
        }
        move_all!(apps, dicts, item_queues, secrets, volumes);
    }

    /// Removes an environment with all its objects. Returns the Volumes whose files the caller has to remove.
    pub fn delete_environment(&mut self, name: &str, now: Now) -> Result<Vec<String>, Error> {
        let id = self.own_environment(name)?.id.clone();
        let apps: Vec<String> = ids(self.apps.values().map(|app: &App| (&app.environment, &app.id)), name);
        for app in apps {
            self.stop_app(&app, now)?;
        }
        for dict in ids(self.dicts.values().map(|dict: &Dict| (&dict.environment, &dict.id)), name) {
            self.delete_dict(&dict)?;
        }
        for secret in ids(self.secrets.values().map(|secret: &Secret| (&secret.environment, &secret.id)), name) {
            self.delete_secret(&secret)?;
        }
        for queue in ids(self.item_queues.values().map(|queue: &Queue| (&queue.environment, &queue.id)), name) {
            self.delete_queue(&queue)?;
        }
        let volumes = ids(self.volumes.values().map(|volume: &Volume| (&volume.environment, &volume.id)), name);
        for volume in &volumes {
            self.delete_volume(volume)?;
        }
        self.environments.remove(&id);
        self.forget::<Environment>(&id);
        Ok(volumes)
    }

    /// An environment that can be changed.
    fn own_environment(&self, name: &str) -> Result<&Environment, Error> {
        if name == DEFAULT_ENVIRONMENT {
            let reason = "is the default one, which stays as it is";
            return Err(Error::Conflict { kind: "Environment", id: name.to_owned(), reason });
        }
        let found = self.environments.values().find(|environment| environment.name == name);
        found.ok_or_else(|| Error::not_found("Environment", name))
    }
}

fn ids<'a>(objects: impl Iterator<Item = (&'a String, &'a String)>, environment: &str) -> Vec<String> {
    objects.filter(|(of, _)| *of == environment).map(|(_, id)| id.clone()).collect()
}

fn check_name(name: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(allowed) {
        let reason = format!("{name:?} has to be 1 to {LONGEST_NAME} letters, digits, dashes, dots and underscores");
        return Err(Error::invalid("environment name", reason));
    }
    Ok(())
}
