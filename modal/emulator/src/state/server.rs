//! Servers: functions without inputs, whose containers listen on a port to which requests are proxied.

use std::time::Duration;

use modal_proto as pb;

use super::{Definition, Now, State, Task, task::Stop};

/// The shortest `Retry-After` while no container listens; the back-off after failures is longer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where a request to a server goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// To this container, which counts it from now on.
    Container(String),
    /// Nowhere: the container has reached its limit.
    Full(u32),
    /// Nowhere yet: a container starts. `failure` is why the last one failed, if it did.
    Starting { retry_after: Duration, failure: Option<String> },
}

impl Definition {
    /// Its HTTP settings, if it is a server.
    pub fn server(&self) -> Option<&pb::HttpConfig> {
        self.function.http_config.as_ref().filter(|_| self.function.is_server)
    }
}

impl Task {
    /// Whether requests can be proxied to it.
    fn listens(&self) -> bool {
        self.ready && self.stop.is_none() && self.definition.server().is_some()
    }

    /// How long a retired server may finish its requests, once it was asked to end.
    pub(super) fn request_grace(&self) -> Option<Duration> {
        let config = self.definition.server().filter(|_| self.stop == Some(Stop::Retire))?;
        Some(if self.requests == 0 { Duration::ZERO } else { Duration::from_secs(config.exit_grace_period.into()) })
    }
}

impl State {
    /// Finds a container for a request, or requests one.
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
        self.request_container(function_id);
        let health = self.health.get(function_id);
        let not_before = health.and_then(|health| health.not_before).map(|at| at.saturating_duration_since(now.mono));
        Route::Starting {
            retry_after: not_before.unwrap_or_default().max(RETRY_AFTER),
            failure: health.and_then(|health| health.last_failure.clone()),
        }
    }

    /// A container has finished a request.
    pub fn end_server_request(&mut self, task_id: &str, now: Now) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        task.requests = task.requests.saturating_sub(1);
        if task.requests == 0 {
            task.idle_since = now.mono;
            self.touch_for(task_id);
        }
    }

    /// A container of a server has finished its start.
    pub fn server_entered(&mut self, task_id: &str) {
        if let Some(task) = self.tasks.get_mut(task_id) {
            task.entered = true;
            self.touch_for(task_id);
        }
    }

    /// A container of a server handles the signal to end from now on.
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
        self.requested_servers.remove(&function_id);
        self.touch();
    }

    /// A container of a server does not listen any more: another one takes its place.
    pub fn server_lost(&mut self, task_id: &str) {
        let Some(task) = self.tasks.get_mut(task_id).filter(|task| task.stop.is_none()) else { return };
        task.interrupt();
        let function_id = task.definition.function_id.clone();
        self.request_container(&function_id);
        self.touch();
    }

    /// Requests a container for a server.
    pub(super) fn request_container(&mut self, function_id: &str) {
        if self.requested_servers.insert(function_id.to_owned()) {
            self.touch();
        }
    }
}
