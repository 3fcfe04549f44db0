//! The layers of an image, as the state has them.

use std::collections::BTreeMap;

use super::{
    copy::{Content, File, Files},
    recipe::Layer,
};
use crate::{
    error::Error,
    state::{Image, State},
};

/// The most layers of an image. Docker allows fewer.
const MOST_LAYERS: usize = 500;

/// The layers of an image, the first one first. Only the first base of an image is followed: an image with several
/// bases is refused when its `COPY --from` is evaluated.
pub fn of(state: &State, image_id: &str) -> Result<Vec<Layer>, Error> {
    let mut layers = Vec::new();
    let mut next = Some(image_id.to_owned());
    while let Some(id) = next {
        let image = state.images.get(&id).ok_or_else(|| Error::not_found("Image", &id))?;
        let layer = layer(state, image)?;
        next = layer.image.base_images.first().map(|base| base.image_id.clone());
        layers.push(layer);
        if layers.len() > MOST_LAYERS {
            return Err(Error::invalid("the image", format!("it has more than {MOST_LAYERS} layers")));
        }
    }
    layers.reverse();
    Ok(layers)
}

fn layer(state: &State, image: &Image) -> Result<Layer, Error> {
    let recipe = image.decoded()?;
    let mut secrets = BTreeMap::new();
    // Only a build needs a Secret that was deleted since, and then fails by itself.
    for secret in recipe.secret_ids.iter().filter_map(|id| state.secrets.get(id)) {
        secrets.extend(secret.variables.clone());
    }
    let mount = state.mounts.get(&recipe.context_mount_id);
    if mount.is_none() && !recipe.context_mount_id.is_empty() {
        return Err(Error::not_found("Mount", &recipe.context_mount_id));
    }
    let files = mount.into_iter().flat_map(|mount| &mount.files).map(|(path, (sha256_hex, mode))| {
        (path.clone(), File { content: Content::Stored(sha256_hex.clone()), mode: *mode })
    });
    Ok(Layer {
        mounted: Files(files.collect()),
        mount_name: mount.map(|mount| mount.name.clone()).unwrap_or_default(),
        secrets,
        salt: image.built.as_ref().map(|built| built.salt.clone()).unwrap_or_default(),
        home: image.built.as_ref().and_then(|built| built.home.clone()),
        image: recipe,
    })
}
