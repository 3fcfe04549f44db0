//! The warnings about skipped steps of recipes.

use modal_proto as pb;

use super::{layers, recipe::Plan};
use crate::{error::Error, options::ImageSteps, shared::Shared};

/// The steps of an image's recipe that are skipped, as the user wrote them.
pub fn steps(shared: &Shared, image_id: &str) -> Result<Vec<String>, Error> {
    if shared.options.image_steps != ImageSteps::Skip {
        return Ok(Vec::new());
    }
    let layers = shared.read(|state| layers::of(state, image_id))?;
    let mut plan = Plan::of(&layers).map_err(|error| Error::invalid("the image", error.to_string()))?;
    Ok(plan.skip_other_steps())
}

/// The warning about all steps that are skipped in the images of an app, if there are any.
pub fn warning(shared: &Shared, app_id: &str) -> Option<pb::Warning> {
    let mut images: Vec<String> = shared.read(|state| {
        let ids = state.app(app_id).map(|app| app.function_ids.values().cloned().collect::<Vec<_>>());
        let definitions = ids.unwrap_or_default();
        let definitions = definitions.iter().filter_map(|id| state.live_definition(id));
        definitions.map(|definition| definition.function.image_id.clone()).collect()
    });
    images.sort();
    images.dedup();
    let mut all: Vec<String> = Vec::new();
    // An image that cannot be read was refused earlier.
    for step in images.iter().filter_map(|id| steps(shared, id).ok()).flatten() {
        if !all.contains(&step) {
            all.push(step);
        }
    }
    let message = format!(
        "Local Modal skipped these steps of the app's images. What they would have installed is missing:\n  {}",
        all.join("\n  ")
    );
    (!all.is_empty()).then(|| pb::Warning { message, ..Default::default() })
}
