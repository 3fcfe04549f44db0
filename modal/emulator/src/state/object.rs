//! The parts of containers: Secrets, Volumes, mounts and images.

use std::{collections::BTreeMap, path::PathBuf};

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{Creation, Now, State};
use crate::{error::Error, ids::new_id, store::Record};

/// Environment variables for containers.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secret {
    pub id: String,
    /// Empty for an anonymous Secret.
    pub name: String,
    pub environment: String,
    pub variables: BTreeMap<String, String>,
    pub created_at: f64,
}

impl Record for Secret {
    const KIND: &'static str = "secret";
    fn id(&self) -> &str {
        &self.id
    }
}

/// A named file tree; its files are in the folder with its id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    pub id: String,
    pub name: String,
    pub environment: String,
    /// `VolumeFsVersion` as it was asked for.
    pub version: i32,
    pub created_at: f64,
    pub ephemeral: bool,
}

impl Record for Volume {
    const KIND: &'static str = "volume";
    fn id(&self) -> &str {
        &self.id
    }
}

/// Files that a container sees; the contents are in the file store, by hash.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mount {
    pub id: String,
    /// The name under which Modal publishes it, if it does: then it has no files here.
    #[serde(default)]
    pub name: String,
    /// Absolute path in the container → (SHA-256 in hex, Unix mode if one was given).
    pub files: BTreeMap<String, (String, Option<u32>)>,
}

impl Record for Mount {
    const KIND: &'static str = "mount";
    fn id(&self) -> &str {
        &self.id
    }
}

/// An image: its recipe, as the SDK sent it, and the result of its build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    pub id: String,
    /// The version of Modal's image builder that the recipe is written for.
    #[serde(default)]
    pub builder_version: String,
    /// The function that is a step of the recipe, under its last id.
    #[serde(default)]
    pub build_function_id: String,
    #[serde(default)]
    pub built: Option<Built>,
    /// When a client last asked for it, in seconds since 1970.
    #[serde(default)]
    pub used_at: f64,
    #[serde(skip)]
    pub recipe: Bytes,
}

impl Record for Image {
    const KIND: &'static str = "image";
    fn id(&self) -> &str {
        &self.id
    }
    fn payload(&self) -> Bytes {
        self.recipe.clone()
    }
    fn set_payload(&mut self, payload: Bytes) {
        self.recipe = payload;
    }
}

/// The result of building an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// The name of its environment's folder, if it has its own.
    pub key: String,
    /// Not empty if the image was rebuilt on request; it changes the key of images that begin with this one.
    pub salt: String,
    /// The interpreter of its environment; none if it uses the server's own.
    pub python: Option<PathBuf>,
    /// The interpreter's version.
    pub version: String,
    /// The name of the folder with the files that its last step, a function, wrote.
    #[serde(default)]
    pub home: Option<String>,
}

impl Image {
    /// The decoded part of the recipe that is used here.
    pub fn decoded(&self) -> Result<modal_proto::Image, Error> {
        modal_proto::Image::decode(self.recipe.clone()).map_err(|error| Error::invalid("Image", error.to_string()))
    }
}

impl State {
    /// The Secret of an id.
    pub fn secret(&self, id: &str) -> Result<&Secret, Error> {
        self.secrets.get(id).ok_or_else(|| Error::not_found("Secret", id))
    }

    /// The Volume of an id.
    pub fn volume(&self, id: &str) -> Result<&Volume, Error> {
        self.volumes.get(id).ok_or_else(|| Error::not_found("Volume", id))
    }

    /// Gets or creates a Secret. An anonymous one with the same variables is reused, so that repeated deployments leave
    /// nothing behind.
    pub fn get_or_create_secret(
        &mut self,
        request: &modal_proto::SecretGetOrCreateRequest,
        now: Now,
    ) -> Result<Secret, Error> {
        let (name, environment) = (&request.deployment_name, &self.environment(&request.environment_name)?);
        let variables: BTreeMap<_, _> = request.env_dict.clone().into_iter().collect();
        let existing =
            self.secrets.values().find(|s| !s.name.is_empty() && s.name == *name && s.environment == *environment);
        let creation = Creation::decide("Secret", name, request.object_creation_type, existing.map(|s| s.id.clone()))?;
        let mut secret = match creation {
            Creation::Existing(id) => return checked(self.secret(&id)?, &request.required_keys),
            Creation::Overwrite(id) => self.secret(&id)?.clone(),
            Creation::Anonymous { .. } => {
                if let Some(same) = self.secrets.values().find(|s| s.name.is_empty() && s.variables == variables) {
                    return Ok(same.clone());
                }
                Secret::new("", environment, now)
            }
            Creation::Named => Secret::new(name, environment, now),
        };
        secret.variables = variables;
        self.save(&secret);
        self.secrets.insert(secret.id.clone(), secret.clone());
        checked(&secret, &request.required_keys)
    }

    /// Sets variables of a Secret, and removes those without a value.
    pub fn update_secret(
        &mut self,
        id: &str,
        updates: impl Iterator<Item = (String, Option<String>)>,
    ) -> Result<(), Error> {
        let mut secret = self.secret(id)?.clone();
        for (key, value) in updates {
            match value {
                Some(value) => secret.variables.insert(key, value),
                None => secret.variables.remove(&key),
            };
        }
        self.save(&secret);
        self.secrets.insert(id.to_owned(), secret);
        Ok(())
    }

    /// Removes a Secret.
    pub fn delete_secret(&mut self, id: &str) -> Result<(), Error> {
        self.secrets.remove(id).ok_or_else(|| Error::not_found("Secret", id))?;
        self.forget::<Secret>(id);
        Ok(())
    }

    /// Gets or creates a Volume.
    pub fn get_or_create_volume(
        &mut self,
        request: &modal_proto::VolumeGetOrCreateRequest,
        now: Now,
    ) -> Result<Volume, Error> {
        let (name, environment) = (&request.deployment_name, &self.environment(&request.environment_name)?);
        let existing =
            self.volumes.values().find(|v| !v.name.is_empty() && v.name == *name && v.environment == *environment);
        let creation = Creation::decide("Volume", name, request.object_creation_type, existing.map(|v| v.id.clone()))?;
        let (name, ephemeral) = match creation {
            Creation::Existing(id) | Creation::Overwrite(id) => return Ok(self.volume(&id)?.clone()),
            Creation::Named => (name.clone(), false),
            Creation::Anonymous { ephemeral } => (String::new(), ephemeral),
        };
        let volume = Volume {
            id: new_id("vo"),
            name,
            environment: environment.to_owned(),
            version: request.version,
            created_at: now.wall,
            ephemeral,
        };
        self.save(&volume);
        self.volumes.insert(volume.id.clone(), volume.clone());
        Ok(volume)
    }

    /// Renames a Volume.
    pub fn rename_volume(&mut self, id: &str, name: &str) -> Result<(), Error> {
        let mut volume = self.volume(id)?.clone();
        if name.is_empty() || volume.name.is_empty() {
            return Err(Error::invalid("name", "only a Volume with a name can be given another one"));
        }
        let taken = |v: &&Volume| v.id != id && v.name == name && v.environment == volume.environment;
        if self.volumes.values().any(|v| taken(&v)) {
            return Err(Error::AlreadyExists { kind: "Volume", id: name.to_owned() });
        }
        name.clone_into(&mut volume.name);
        self.save(&volume);
        self.volumes.insert(id.to_owned(), volume);
        Ok(())
    }

    /// Removes a Volume from the state. The caller has to remove its files.
    pub fn delete_volume(&mut self, id: &str) -> Result<(), Error> {
        self.volumes.remove(id).ok_or_else(|| Error::not_found("Volume", id))?;
        self.forget::<Volume>(id);
        Ok(())
    }

    /// Records a mount. Its files must be in the file store already.
    pub fn add_mount(&mut self, mount: Mount) -> Result<(), Error> {
        if !self.mounts.contains_key(&mount.id) {
            self.save(&mount);
            self.mounts.insert(mount.id.clone(), mount);
        }
        Ok(())
    }

    /// Records an image's recipe, or a repeated request for it.
    pub fn add_image(&mut self, mut image: Image) -> Result<(), Error> {
        image.decoded()?;
        if let Some(known) = self.images.get(&image.id) {
            image.built = known.built.clone();
        }
        self.save(&image);
        self.images.insert(image.id.clone(), image);
        Ok(())
    }

    /// Records the result of an image's build.
    pub fn image_built(&mut self, id: &str, built: Built) -> Result<(), Error> {
        let image = self.images.get_mut(id).ok_or_else(|| Error::not_found("Image", id))?;
        if image.built.as_ref() != Some(&built) {
            image.built = Some(built);
            let image = image.clone();
            self.save(&image);
        }
        Ok(())
    }
}

/// The Secret, if it has all the keys that the app requires.
fn checked(secret: &Secret, required_keys: &[String]) -> Result<Secret, Error> {
    match required_keys.iter().find(|key| !secret.variables.contains_key(*key)) {
        Some(missing) => Err(Error::not_found("Secret key", missing)),
        None => Ok(secret.clone()),
    }
}

impl Secret {
    fn new(name: &str, environment: &str, now: Now) -> Self {
        Self {
            id: new_id("st"),
            name: name.to_owned(),
            environment: environment.to_owned(),
            variables: BTreeMap::new(),
            created_at: now.wall,
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}
