//! Restoring the state of the last run from its rows.

use std::{collections::BTreeSet, sync::Arc};

use modal_proto::AppState;

use super::{
    App, Call, Class, Definition, Dict, Environment, Function, Image, Input, Mount, Now, Output, ProxyToken, Queue,
    Schedule, Secret, State, Version, Volume, dict::DictItem, queue::QueueItem, recent::StoredResponse,
};
use crate::store::{Record, StoreError, StoredRow};

/// How long an image that no function uses is kept after a client last asked for it.
const IMAGES_KEPT_SECONDS: f64 = 7.0 * 24.0 * 3600.0;

impl State {
    /// Builds the state from the stored rows. Ends what does not outlive a run, and queues again what was waiting or
    /// running. Rows of unknown kinds are left alone.
    pub fn load(rows: Vec<StoredRow>, now: Now) -> Result<Self, StoreError> {
        let mut state = Self::default();
        let (mut items, mut queued, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            match row.kind.as_str() {
                Environment::KIND => insert(row, |r: Environment| state.environments.insert(r.id.clone(), r))?,
                Version::KIND => insert(row, |r: Version| state.versions.insert(r.id.clone(), r))?,
                App::KIND => insert(row, |r: App| state.apps.insert(r.id.clone(), r))?,
                Function::KIND => insert(row, |r: Function| state.functions.insert(r.id.clone(), r))?,
                Definition::KIND => insert(row, |r: Definition| state.definitions.insert(r.id.clone(), Arc::new(r)))?,
                Class::KIND => insert(row, |r: Class| state.classes.insert(r.id.clone(), r))?,
                Schedule::KIND => insert(row, |r: Schedule| state.schedules.insert(r.function_id.clone(), r))?,
                Call::KIND => insert(row, |r: Call| state.calls.insert(r.id.clone(), r))?,
                Input::KIND => insert(row, |r: Input| state.inputs.insert(r.id.clone(), r))?,
                Output::KIND => insert(row, |r: Output| outputs.push(r))?,
                Dict::KIND => insert(row, |r: Dict| state.dicts.insert(r.id.clone(), r))?,
                DictItem::KIND => insert(row, |r: DictItem| items.push(r))?,
                Queue::KIND => insert(row, |r: Queue| state.item_queues.insert(r.id.clone(), r))?,
                QueueItem::KIND => insert(row, |r: QueueItem| queued.push(r))?,
                StoredResponse::KIND => insert(row, |r: StoredResponse| state.restore_response(r))?,
                Volume::KIND => insert(row, |r: Volume| state.volumes.insert(r.id.clone(), r))?,
                Secret::KIND => insert(row, |r: Secret| state.secrets.insert(r.id.clone(), r))?,
                ProxyToken::KIND => insert(row, |r: ProxyToken| state.proxy_tokens.insert(r.id.clone(), r))?,
                Mount::KIND => insert(row, |r: Mount| state.mounts.insert(r.id.clone(), r))?,
                Image::KIND => insert(row, |r: Image| state.images.insert(r.id.clone(), r))?,
                other => tracing::warn!(kind = other, "a stored row of an unknown kind is left alone"),
            }
        }
        let keys = state.calls.values().filter_map(|c| Some((c.request_key.clone()?, c.id.clone())));
        state.call_keys = keys.collect();
        state.join_items(items);
        state.join_queue_items(queued);
        state.join_outputs(outputs);
        state.join_inputs();
        state.make_bound_functions();
        state.end_ephemeral(now);
        state.forget_unused(now);
        Ok(state)
    }

    fn join_items(&mut self, items: Vec<DictItem>) {
        for item in items {
            let place = item.place().and_then(|(id, key)| Some((self.dicts.get_mut(id)?, key)));
            match place {
                Some((dict, key)) => drop(dict.entries.insert(key, item.value)),
                None => self.forget::<DictItem>(item.id()),
            }
        }
    }

    fn join_queue_items(&mut self, items: Vec<QueueItem>) {
        // They were read in the order of their ids, which is the order of their partitions.
        for item in items {
            let place = item.place().and_then(|(id, partition)| Some((self.item_queues.get_mut(id)?, partition)));
            match place {
                Some((queue, partition)) => queue.restore(partition, item),
                None => self.forget::<QueueItem>(item.id()),
            }
        }
    }

    fn join_outputs(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match self.calls.get_mut(&output.call_id) {
                Some(call) => {
                    call.input_ids.insert(output.idx, output.input_id.clone());
                    call.outputs.push(output);
                }
                None => self.forget::<Output>(output.id()),
            }
        }
        for call in self.calls.values_mut() {
            call.outputs.sort_by_key(|output| output.sequence);
        }
    }

    fn join_inputs(&mut self) {
        for input in self.inputs.values() {
            if let Some(call) = self.calls.get_mut(&input.call_id) {
                call.unfinished.insert(input.id.clone());
                call.input_ids.insert(input.idx, input.id.clone());
            }
            // Ids sort by age, so the queues are in order.
            self.queues.entry(input.function_id.clone()).or_default().push_back(input.id.clone());
        }
    }

    fn make_bound_functions(&mut self) {
        let bases: BTreeSet<String> = self.functions.values().filter_map(|f| f.bound_to.clone()).collect();
        for base in bases {
            self.rebind(&base);
        }
    }

    /// Forgets what only earlier definitions referred to.
    fn forget_unused(&mut self, now: Now) {
        self.forget_unused_images(now);
        let recipes: Vec<_> = self.images.values().filter_map(|image| image.decoded().ok()).collect();
        let functions = || self.definitions.values().map(|definition| &definition.function);
        let used = |ids: &mut dyn Iterator<Item = &String>| ids.cloned().collect::<BTreeSet<String>>();
        let of_images = recipes.iter().map(|recipe| &recipe.context_mount_id);
        let mounts = used(&mut functions().flat_map(|f| &f.mount_ids).chain(of_images));
        let of_images = recipes.iter().flat_map(|recipe| &recipe.secret_ids);
        let secrets = used(&mut functions().flat_map(|f| &f.secret_ids).chain(of_images));
        let mounts: Vec<String> = self.mounts.keys().filter(|id| !mounts.contains(*id)).cloned().collect();
        let unused = |s: &&Secret| s.name.is_empty() && !secrets.contains(&s.id);
        let secrets: Vec<String> = self.secrets.values().filter(unused).map(|s| s.id.clone()).collect();
        let volumes: Vec<String> = self.volumes.values().filter(|v| v.ephemeral).map(|v| v.id.clone()).collect();
        for id in mounts {
            self.mounts.remove(&id);
            self.forget::<Mount>(&id);
        }
        for id in secrets {
            self.secrets.remove(&id);
            self.forget::<Secret>(&id);
        }
        for id in volumes {
            self.volumes.remove(&id);
            self.forget::<Volume>(&id);
            self.dropped_volumes.push(id);
        }
    }

    /// Forgets images that no function uses, directly or as a layer, and that no client has asked for in a long time.
    fn forget_unused_images(&mut self, now: Now) {
        let mut used = BTreeSet::new();
        let lately = |image: &&Image| image.used_at + IMAGES_KEPT_SECONDS > now.wall;
        let of_functions = self.definitions.values().map(|definition| definition.function.image_id.clone());
        let mut next: Vec<String> =
            self.images.values().filter(lately).map(|image| image.id.clone()).chain(of_functions).collect();
        while let Some(id) = next.pop() {
            if let Some(recipe) = self.images.get(&id).and_then(|image| image.decoded().ok())
                && used.insert(id)
            {
                next.extend(recipe.base_images.into_iter().map(|base| base.image_id));
            }
        }
        let unused: Vec<String> = self.images.keys().filter(|id| !used.contains(*id)).cloned().collect();
        for id in unused {
            self.images.remove(&id);
            self.forget::<Image>(&id);
        }
    }

    /// Ends what ends with the server: apps of client sessions, and anonymous objects.
    fn end_ephemeral(&mut self, now: Now) {
        let unfinished = |a: &&App| matches!(a.state(), AppState::Initializing | AppState::Ephemeral);
        let apps: Vec<String> = self.apps.values().filter(unfinished).map(|a| a.id.clone()).collect();
        for id in apps {
            if let Err(error) = self.stop_app(&id, now) {
                tracing::warn!(app.id = id, %error, "an app of the last run could not be ended");
            }
        }
        let dicts: Vec<String> = self.dicts.values().filter(|d| d.ephemeral).map(|d| d.id.clone()).collect();
        for id in dicts {
            if let Err(error) = self.delete_dict(&id) {
                tracing::warn!(dict.id = id, %error, "a Dict of the last run could not be removed");
            }
        }
        let queues: Vec<String> = self.item_queues.values().filter(|q| q.ephemeral).map(|q| q.id.clone()).collect();
        for id in queues {
            if let Err(error) = self.delete_queue(&id) {
                tracing::warn!(queue.id = id, %error, "a Queue of the last run could not be removed");
            }
        }
    }
}

fn insert<R: Record, T>(row: StoredRow, keep: impl FnOnce(R) -> T) -> Result<(), StoreError> {
    keep(row.decode::<R>()?);
    Ok(())
}
