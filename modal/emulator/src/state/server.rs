//! Servers: functions without inputs, whose containers listen on a port to which requests are passed on.

use std::time::Duration;

use modal_proto as pb;

use super::{Definition, Now, State, Task, task::Stop};

/// Shortest `Retry-After` while no container listens; a back-off after failures is longer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where a request to a server goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// To this container, which has it from now on.
    Container(String),
    /// Nowhere: the container has as many as it may.
    Full(u32),
    /// Nowhere yet: a container is about to start, after the last one failed with this message, if it did.
    Starting { retry_after: Duration, failure: Option<String> },
}

impl Definition {
    /// How it listens, if it is a server.
    pub fn server(&self) -> Option<&pb::HttpConfig> {
        self.function.http_config.as_ref().filter(|_| self.function.is_server)
    }
}

impl Task {
    /// Whether requests can be passed on to it.
    fn listens(&self) -> bool {
        self.ready && self.stop.is_none() && self.definition.server().is_some()
    }

    /// How long a retired server may finish what it does, once it was asked to end.
    pub(super) fn request_grace(&self) -> Option<Duration> {
        let config = self.definition.server().filter(|_| self.stop == Some(Stop::Retire))?;
        Some(if self.requests == 0 { Duration::ZERO } else { Duration::from_secs(config.exit_grace_period.into()) })
    }
}

impl State {
    /// Finds a container for a request, or sees to it that there will be one.
    pub fn begin_server_request(&mut self, function_id: &str, now: Now) -> Route {
        let listening = self.tasks.values_mut().filter(|t| t.definition.function_id == function_id && t.listens());
        if let Some(task) = listening.min_by_key(|task| task.requests) {
            let most = task.definition.function.max_concurrent_inputs;
            if most > 0 && task.requests >= most {
                return Route::Full(most);
            }
            task.requests += 1;
            task.served += 1;
            return Route::Container(task.id.clone());
        }
        self.want_server(function_id);
        let health = self.health.get(function_id);
        let not_before = health.and_then(|health| health.not_before).map(|at| at.saturating_duration_since(now.mono));
        Route::Starting {
            retry_after: not_before.unwrap_or_default().max(RETRY_AFTER),
            failure: health.and_then(|health| health.last_failure.clone()),
        }
    }

    /// A container is done with a request.
    pub fn end_server_request(&mut self, task_id: &str, now: Now) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        task.requests = task.requests.saturating_sub(1);
        if task.requests == 0 {
            task.idle_since = now.mono;
            self.touch_for(task_id);
        }
    }

    /// A container of a server is done with what it does at its start.
    pub fn server_entered(&mut self, task_id: &str) {
        if let Some(task) = self.tasks.get_mut(task_id) {
            task.entered = true;
            self.touch_for(task_id);
        }
    }

    /// A container of a server runs its exit handlers when it is asked to end.
    pub fn server_can_end(&mut self, task_id: &str) {
        if let Some(task) = self.tasks.get_mut(task_id) {
            task.runs_user_code = true;
        }
    }

    /// A container of a server can be reached on its port.
    pub fn server_listens(&mut self, task_id: &str, now: Now) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        (task.ready, task.idle_since) = (true, now.mono);
        let function_id = task.definition.function_id.clone();
        self.health.remove(&function_id);
        self.wanted_servers.remove(&function_id);
        self.touch();
    }

    /// A container of a server does not listen any more: another one takes its place.
    pub fn server_lost(&mut self, task_id: &str) {
        let Some(task) = self.tasks.get_mut(task_id).filter(|task| task.stop.is_none()) else { return };
        task.interrupt();
        let function_id = task.definition.function_id.clone();
        self.want_server(&function_id);
        self.touch();
    }

    /// Sees to it that a server has a container.
    pub(super) fn want_server(&mut self, function_id: &str) {
        if self.wanted_servers.insert(function_id.to_owned()) {
            self.touch();
        }
    }
}
