//! Recipes with a function of the user as a step: it runs in a container of the image so far.
//!
//! What it writes into its home and its working folder becomes a layer of the image; what it writes into Volumes stays
//! there. Other files are lost, or stay on this machine if they are outside of the container's private folders.

use std::sync::Arc;

use modal_proto::{self as pb, generic_result::GenericStatus};
use prost::Message;

use super::{BuildError, Log, homes, log::STEP};
use crate::{
    error::Error,
    files::blocking,
    logs::{AppLog, Position},
    shared::Shared,
    state::OutputsQuery,
};

/// Calls the function of an image's recipe, if it has one, and waits for its end. Its output goes into the log. Returns
/// the name of the layer with what it wrote.
pub async fn run(shared: &Arc<Shared>, image_id: &str, log: &Log) -> Result<Option<String>, BuildError> {
    let (recipe, function_id) = shared.read(|state| {
        let image = state.images.get(image_id).ok_or_else(|| Error::not_found("Image", image_id))?;
        Ok::<_, Error>((image.decoded()?, image.build_function_id.clone()))
    })?;
    let Some(step) = recipe.build_function else { return Ok(None) };
    let input =
        pb::FunctionInput::decode(step.input).map_err(|error| Error::invalid("the input", error.to_string()))?;
    let known = shared.read(|state| state.live_definition(&function_id).cloned());
    let Some(definition) = known else {
        return Err(BuildError("the function of this build is not known any more; deploy again".to_owned()));
    };
    log.write(&format!("{STEP}running {}", definition.function.function_name));
    let app_log = shared.logs.app(&definition.app_id).map_err(Error::io("open", "the app's log"))?;
    let mut printed = OutputFollower { app_log, function_id: function_id.clone(), position: Position::default(), log };
    printed.read(false).await?;
    let call_id = shared.change(|state, now| state.begin_build(&function_id, input, now)).await?;
    let output =
        printed
            .until(shared.wait_for(&call_id, None, |state, _| {
                Ok(state.outputs(&call_id, OutputsQuery::Range(0, 0))?.items.pop())
            }))
            .await?;
    shared.change(|state, now| state.end_build(&function_id, now)).await?;
    // Once its containers have ended, all their output is in the log.
    printed
        .until(shared.wait_for(&function_id, None, |state, _| {
            Ok((!state.tasks.values().any(|task| task.definition.function_id == function_id)).then_some(()))
        }))
        .await?;
    printed.read(true).await?;
    let result = output.and_then(|output| output.result).unwrap_or_default();
    let options = shared.options.clone();
    let has_succeeded = result.status() == GenericStatus::Success;
    let layer = blocking(move || {
        let layer = if has_succeeded {
            homes::take_written(&options, &function_id)
        } else {
            homes::discard_written(&options, &function_id).map(|()| None)
        };
        layer.map_err(Error::io("keep", "what a step of an image wrote"))
    });
    let layer = layer.await?;
    if has_succeeded {
        return Ok(layer);
    }
    log.write(&result.traceback);
    Err(BuildError(format!("{} failed: {}", definition.function.function_name, result.exception)))
}

/// Copies the output of the containers of one function into the log of a build.
struct OutputFollower<'a> {
    app_log: Arc<AppLog>,
    function_id: String,
    position: Position,
    log: &'a Log,
}

impl OutputFollower<'_> {
    /// Copies output until a future is ready.
    async fn until<T>(&mut self, happens: impl Future<Output = Result<T, Error>>) -> Result<T, BuildError> {
        let mut printed = self.app_log.subscribe();
        tokio::pin!(happens);
        loop {
            printed.mark_unchanged();
            self.read(true).await?;
            tokio::select! {
                happened = &mut happens => return Ok(happened?),
                // The sender lives as long as the log.
                _ = printed.changed() => {}
            }
        }
    }

    async fn read(&mut self, shown: bool) -> Result<(), BuildError> {
        loop {
            let (app_log, from) = (self.app_log.clone(), self.position);
            let read = blocking(move || app_log.read(from).map_err(Error::io("read", "the app's log")));
            let (lines, next) = read.await?;
            self.position = next;
            if lines.is_empty() {
                return Ok(());
            }
            for line in lines.iter().filter(|line| shown && line.function_id == self.function_id) {
                self.log.write(&line.data);
            }
        }
    }
}
