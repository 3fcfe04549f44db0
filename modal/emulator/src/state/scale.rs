//! Scaling: how many containers a function gets, by its settings and its waiting inputs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use modal_proto as pb;
use serde::{Deserialize, Serialize};

use super::{Definition, Function, Now, State, Task, plan::Plan, task::Stop};
use crate::error::Error;

/// How long an idle container is kept, unless its function sets it.
const SCALEDOWN_WINDOW: u32 = 60;

/// Settings that were changed since the function was deployed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Overrides {
    min: Option<u32>,
    max: Option<u32>,
    buffer: Option<u32>,
    window: Option<u32>,
    scaleup_window: Option<u32>,
    target_concurrency: Option<f64>,
}

/// The effective settings.
#[derive(Debug, Clone, Copy)]
struct Scale {
    min: usize,
    max: usize,
    /// How many idle containers there should be while the function is in use.
    buffer: usize,
    window: Duration,
}

impl State {
    /// Changes settings of a function until it is deployed again.
    pub fn update_autoscaler(
        &mut self,
        function_id: &str,
        settings: &pb::AutoscalerSettings,
    ) -> Result<pb::AutoscalerSettings, Error> {
        let mut function = self.function(function_id)?.clone();
        let old = function.overrides;
        function.overrides = Overrides {
            min: settings.min_containers.or(old.min),
            max: settings.max_containers.or(old.max),
            buffer: settings.buffer_containers.or(old.buffer),
            window: settings.scaledown_window.or(old.window),
            scaleup_window: settings.scaleup_window.or(old.scaleup_window),
            target_concurrency: settings.target_concurrency_float.or(old.target_concurrency),
        };
        let definition = self.live_definition(function_id).cloned();
        let definition = definition.ok_or_else(|| Error::not_found("live Function", function_id))?;
        let now = settings_of(&definition.function, &function.overrides);
        if let (Some(min), Some(max @ 1..)) = (now.min_containers, now.max_containers)
            && min > max
        {
            return Err(Error::invalid("min_containers", format!("{min} is more than max_containers, which is {max}")));
        }
        self.save(&function);
        self.functions.insert(function.id.clone(), function);
        self.touch();
        Ok(now)
    }

    /// The settings of a definition, with later changes.
    pub fn autoscaler_settings(&self, definition: &Definition) -> pb::AutoscalerSettings {
        let overrides = self.functions.get(&definition.function_id).map(|f| f.overrides).unwrap_or_default();
        settings_of(&definition.function, &overrides)
    }

    /// Resets a function, and those that are bound to it, to the settings of its definition.
    pub(super) fn reset_autoscaler(&mut self, base_id: &str) {
        let changed = |f: &&Function| f.base_id() == base_id && f.overrides != Overrides::default();
        let functions: Vec<Function> = self.functions.values().filter(changed).cloned().collect();
        for function in functions {
            let function = Function { overrides: Overrides::default(), ..function };
            self.save(&function);
            self.functions.insert(function.id.clone(), function);
        }
    }

    fn scale_of(&self, definition: &Definition) -> Scale {
        let settings = self.autoscaler_settings(definition);
        let count = |setting: Option<u32>| setting.unwrap_or(0) as usize;
        // A class with parameters cannot be kept warm without them.
        let min = count(settings.min_containers);
        let min = if min > 0 && definition.needs_params() { 0 } else { min };
        let max = match count(settings.max_containers) {
            0 => min.max(self.settings.default_max_containers as usize),
            max => max,
        };
        // Its port is one of this machine, so only one container can have it.
        let max = if definition.has_own_port() { max.min(1) } else { max };
        let window = settings.scaledown_window.filter(|window| *window > 0).unwrap_or(SCALEDOWN_WINDOW);
        Scale { min, max, buffer: count(settings.buffer_containers), window: Duration::from_secs(window.into()) }
    }

    /// Whether a function has as many containers as it may have.
    pub fn is_at_limit(&self, definition: &Definition) -> bool {
        self.staying(&definition.function_id).count() >= self.scale_of(definition).max
    }

    /// The statistics of a function.
    pub fn function_stats(&self, function_id: &str) -> Result<pb::FunctionStats, Error> {
        self.function(function_id)?;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let tasks = || self.tasks.values().filter(|t| t.definition.function_id == function_id);
        Ok(pb::FunctionStats {
            backlog: count(self.queues.get(function_id).map_or(0, |queue| queue.len())),
            num_total_tasks: count(tasks().count()),
            num_running_inputs: count(tasks().map(|t| t.running.len()).sum()),
            input_headroom: count(tasks().map(Task::capacity).sum()),
        })
    }

    /// The containers of a function that are not stopping.
    fn staying<'a>(&'a self, function_id: &'a str) -> impl Iterator<Item = &'a Task> {
        self.tasks.values().filter(move |t| t.definition.function_id == function_id && t.stop != Some(Stop::Retire))
    }

    /// Starts new containers.
    pub(super) fn start_containers(&mut self, now: Now, plan: &mut Plan) {
        for (definition, scale) in self.scales() {
            self.start_missing(&definition, scale, now, plan);
        }
    }

    /// Retires containers that are not needed any more.
    pub(super) fn retire_containers(&mut self, now: Now, plan: &mut Plan) {
        for (definition, scale) in self.scales() {
            self.retire_idle(&definition.function_id, scale, now, plan);
        }
    }

    /// The live functions that have containers, or should have some.
    fn scales(&self) -> Vec<(Arc<Definition>, Scale)> {
        let live = self.functions.values().filter_map(|function| self.live_definition(&function.id));
        let scales = live.map(|definition| (definition.clone(), self.scale_of(definition)));
        scales.filter(|(definition, scale)| scale.min > 0 || self.is_used(&definition.function_id)).collect()
    }

    /// Whether a function has containers or waiting inputs.
    fn is_used(&self, function_id: &str) -> bool {
        let queued = self.queues.get(function_id).is_some_and(|queue| !queue.is_empty());
        queued
            || self.requested_servers.contains(function_id)
            || self.tasks.values().any(|t| t.definition.function_id == function_id)
    }

    /// Retires containers that have been idle for long, but no more than the function can spare.
    fn retire_idle(&mut self, function_id: &str, scale: Scale, now: Now, plan: &mut Plan) {
        let count = self.staying(function_id).count();
        let idle_tasks = self.staying(function_id).filter(|t| t.is_idle());
        let mut idle: Vec<(Instant, String)> = idle_tasks.map(|t| (t.idle_since, t.id.clone())).collect();
        idle.sort_unstable();
        let mut spare = count.saturating_sub(scale.min).min(idle.len());
        if count > idle.len() {
            spare = spare.min(idle.len().saturating_sub(scale.buffer));
        }
        let mut retired = false;
        for (idle_since, id) in idle.into_iter().take(spare) {
            let until = idle_since + scale.window;
            match self.tasks.get_mut(&id) {
                Some(task) if until <= now.mono => {
                    task.retire();
                    retired = true;
                }
                _ => plan.at(until),
            }
        }
        if retired {
            self.touch();
        }
    }

    /// Starts containers for waiting inputs, and those that the function always has.
    fn start_missing(&mut self, definition: &std::sync::Arc<Definition>, scale: Scale, now: Now, plan: &mut Plan) {
        let function_id = &definition.function_id;
        let per_container = definition.target_concurrency() * definition.batch_size();
        let due = match definition.server() {
            Some(_) => usize::from(self.requested_servers.contains(function_id)),
            None => self.count_due(function_id, scale.max * per_container, now, plan),
        };
        let tasks = || self.tasks.values().filter(|t| t.definition.function_id == *function_id);
        let mut capacity: usize = tasks().map(Task::target_capacity).sum();
        let mut count = self.staying(function_id).count();
        let active = due > 0 || tasks().any(Task::is_busy);
        let wanted = due + if active { scale.buffer * per_container } else { 0 };
        if wanted <= capacity && count >= scale.min {
            return;
        }
        // A container that is stopping still has the port.
        if definition.has_own_port() && tasks().next().is_some() {
            return;
        }
        let failures = self.health.get(function_id).map_or(0, |h| h.failures);
        if let Some(at) = self.health.get(function_id).and_then(|h| h.not_before).filter(|at| *at > now.mono) {
            return plan.at(at);
        }
        // One at a time after a failure: several would likely fail, too.
        let max = if failures > 0 { scale.max.min(1) } else { scale.max };
        while (capacity < wanted || count < scale.min) && count < max {
            plan.start.push(self.new_task(definition.clone(), now));
            capacity += per_container;
            count += 1;
        }
    }

    /// How many due inputs of a function wait for a container; counting stops at `enough`. Idle containers are woken
    /// when more become due.
    fn count_due(&mut self, function_id: &str, enough: usize, now: Now, plan: &mut Plan) -> usize {
        let (mut due, mut matured) = (0, false);
        for input_id in self.queues.get(function_id).into_iter().flatten() {
            let Some(input) = self.inputs.get_mut(input_id) else { continue };
            match input.not_before {
                Some(at) if at > now.mono => plan.at(at),
                not_before => {
                    matured |= not_before.is_some();
                    input.not_before = None;
                    due += 1;
                    if due >= enough {
                        break;
                    }
                }
            }
        }
        if matured {
            self.touch();
        }
        due
    }
}

/// The settings in a definition, in their new and old form, with changes on top.
fn settings_of(function: &pb::Function, overrides: &Overrides) -> pb::AutoscalerSettings {
    let declared = function.autoscaler_settings.unwrap_or_default();
    let old = |setting: u32| (setting > 0).then_some(setting);
    pb::AutoscalerSettings {
        min_containers: overrides.min.or(declared.min_containers).or(old(function.warm_pool_size)),
        max_containers: overrides.max.or(declared.max_containers).or(old(function.concurrency_limit)),
        buffer_containers: overrides
            .buffer
            .or(declared.buffer_containers)
            .or(old(function.experimental_buffer_containers)),
        scaledown_window: overrides.window.or(declared.scaledown_window).or(old(function.task_idle_timeout_secs)),
        scaleup_window: overrides.scaleup_window.or(declared.scaleup_window),
        target_concurrency_float: overrides.target_concurrency.or(declared.target_concurrency_float),
        ..declared
    }
}
