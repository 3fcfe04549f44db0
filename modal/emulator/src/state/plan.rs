//! The plan of actions: the one place where limits, schedules and queues turn into actions.
//!
//! [`State::plan`] is idempotent and level-triggered: it depends on the current state only, not on how often it is
//! called or what happened in between.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use modal_proto::generic_result::GenericStatus;

use super::{
    Now, Settings, State, Task,
    input::Attempt,
    task::{Running, Stop},
};

/// How long a container may take to end after it learned that there are no more inputs.
const LEAVE_GRACE: Duration = Duration::from_secs(30);
/// How long an app that is not deployed outlives the last heartbeat of its client, which comes every 15 s.
const APP_HEARTBEAT: Duration = Duration::from_secs(120);
const SWEEP_PERIOD: Duration = Duration::from_secs(600);

/// A way to end a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// It may run its exit handlers.
    Interrupt,
    /// The same for a server, which waits for another signal.
    Terminate,
    Kill,
}

/// Actions for the driver.
#[derive(Debug, Default)]
pub struct Plan {
    /// Ids of tasks whose containers have to start.
    pub start: Vec<String>,
    /// Containers to signal.
    pub signal: Vec<(String, StopSignal)>,
    /// Calls whose streams have to be dropped.
    pub forget: Vec<String>,
    /// When to plan again, if nothing happens before.
    pub wake_at: Option<Instant>,
}

impl Plan {
    pub(super) fn at(&mut self, time: Instant) {
        self.wake_at = Some(self.wake_at.map_or(time, |earlier| earlier.min(time)));
    }
}

impl State {
    /// Sets the options that transitions use.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Does what is due now, and returns the actions for the driver.
    pub fn plan(&mut self, now: Now) -> Plan {
        let mut plan = Plan::default();
        if self.closing {
            self.tasks.values_mut().for_each(Task::interrupt);
        } else {
            if let Some(next) = self.fire_schedules(now) {
                plan.at(now.mono + Duration::from_secs_f64((next - now.wall).clamp(0.0, 3600.0)));
            }
            self.end_deserted_apps(now, &mut plan);
            self.end_finished_apps(now);
            self.retire_containers(now, &mut plan);
            self.enforce_limits(now, &mut plan);
            self.start_containers(now, &mut plan);
        }
        plan.signal.extend(self.to_kill.drain(..).map(|id| (id, StopSignal::Kill)));
        self.signal_stopping(now, &mut plan);
        if self.next_sweep.is_none_or(|at| at <= now.mono) {
            self.forget_old_calls(now);
            self.forget_old_apps(now);
            self.expire_queues(now);
            self.next_sweep = Some(now.mono + SWEEP_PERIOD);
        }
        plan.forget = std::mem::take(&mut self.forgotten_calls);
        plan
    }

    /// Ends apps whose clients have sent no heartbeat for long.
    fn end_deserted_apps(&mut self, now: Now, plan: &mut Plan) {
        let limits: Vec<_> = self.heartbeats.iter().map(|(id, heard)| (id.clone(), *heard + APP_HEARTBEAT)).collect();
        for (id, until) in limits {
            if until > now.mono {
                plan.at(until);
            } else {
                self.heartbeats.remove(&id);
                if let Err(error) = self.disconnect_app(&id, now) {
                    tracing::warn!(app.id = id, %error, "a deserted app could not be ended");
                }
            }
        }
    }

    /// Ends inputs and starts that take too long, and containers that are not needed.
    fn enforce_limits(&mut self, now: Now, plan: &mut Plan) {
        let mut stuck = Vec::new();
        for task in self.tasks.values_mut() {
            if task.stop.is_none_or(|stop| stop == Stop::Retire) {
                stuck.extend(limit_inputs(task, now, plan));
            }
            if task.stop.is_none() {
                limit_start(task, now, plan);
            }
            let leaving = task.takes_no_more();
            if leaving && task.running.is_empty() && task.stop.is_none_or(|stop| stop == Stop::Retire) {
                let grace = task.request_grace();
                let by = *task.leave_by.get_or_insert(now.mono + grace.unwrap_or(LEAVE_GRACE));
                let by = if grace == Some(Duration::ZERO) { now.mono } else { by };
                if by <= now.mono {
                    task.interrupt();
                } else {
                    plan.at(by);
                }
            }
        }
        for (input_id, attempt) in stuck {
            self.end_attempt(&input_id, attempt, now);
            self.touch();
        }
    }

    fn signal_stopping(&mut self, now: Now, plan: &mut Plan) {
        let grace = self.settings.stop_grace;
        for task in self.tasks.values_mut() {
            match task.stop {
                // An interrupted start of the interpreter or of the SDK prints a traceback, and has nothing to end.
                Some(Stop::Interrupt) if !task.runs_user_code => {
                    plan.signal.push((task.id.clone(), StopSignal::Kill));
                    task.stop = Some(Stop::Killed);
                }
                Some(Stop::Interrupt) => {
                    let is_server = task.definition.server().is_some();
                    let signal = if is_server { StopSignal::Terminate } else { StopSignal::Interrupt };
                    plan.signal.push((task.id.clone(), signal));
                    task.stop = Some(Stop::Interrupted(now.mono + grace));
                    plan.at(now.mono + grace);
                }
                Some(Stop::Interrupted(until)) if until <= now.mono => {
                    plan.signal.push((task.id.clone(), StopSignal::Kill));
                    task.stop = Some(Stop::Killed);
                }
                Some(Stop::Interrupted(until)) => plan.at(until),
                None | Some(Stop::Retire | Stop::Killed) => {}
            }
        }
    }
}

/// Ends a container for an input whose time is up. If it runs other inputs beside a canceled one, it may finish them,
/// and the canceled one is returned with its end.
fn limit_inputs(task: &mut Task, now: Now, plan: &mut Plan) -> Vec<(String, Attempt)> {
    let mut over = false;
    let is_due = |running: &Running| running.cancel_by.is_some_and(|at| at <= now.mono);
    let due: BTreeSet<u32> = task.running.values().filter(|r| is_due(r)).map(|r| r.delivery).collect();
    if !due.is_empty() && task.running.values().any(|running| !due.contains(&running.delivery)) {
        // The code of the canceled input keeps running and takes its place.
        task.retire();
        let stuck = task.running.extract_if(.., |_, running| is_due(running));
        let task_id = task.id.clone();
        return stuck.map(|(id, running)| (id, Attempt::cancelled(&task_id, &running, now))).collect();
    }
    for running in task.running.values_mut() {
        if running.cancel_by.is_some_and(|at| at <= now.mono) {
            running.verdict = Some(GenericStatus::Terminated);
        } else if running.deadline <= now.mono {
            running.verdict = Some(GenericStatus::Timeout);
        } else {
            plan.at(running.cancel_by.map_or(running.deadline, |at| at.min(running.deadline)));
        }
        over |= running.verdict.is_some();
    }
    if over {
        task.interrupt();
    }
    Vec::new()
}

/// Ends a container that takes too long to ask for inputs.
fn limit_start(task: &mut Task, now: Now, plan: &mut Plan) {
    if task.ready || task.failed {
        return;
    }
    let until = task.started + task.start_limit();
    if until <= now.mono {
        task.overdue = true;
        task.interrupt();
    } else {
        plan.at(until);
    }
}
