//! Metrics of the daemon for Prometheus.

use std::{sync::Arc, time::Duration};

use airflow_serverless_api::{
    environment::{ConditionKind, Environment},
    operation::OperationKind,
    operation::OperationState,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

/// The media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    method: String,
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    kind: String,
    state: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    state: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EnvironmentLabels {
    environment: String,
}

/// Counters of the running daemon; clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram>,
    operations: Family<OperationLabels, Counter>,
    environments: Family<StateLabels, Gauge>,
    schedulers: Family<EnvironmentLabels, Gauge>,
    resident: Gauge,
    open_files: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 4.0, 8));
        let seconds = Family::new_with_constructor(histogram);
        let (operations, environments, schedulers) = (Family::default(), Family::default(), Family::default());
        let (resident, open_files) = (Gauge::default(), Gauge::default());
        let versions = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("airflow_version", crate::AIRFLOW_VERSION),
            ("modal_version", crate::MODAL_VERSION),
        ];
        registry.register(
            "airflowd_build",
            "Versions of the daemon and of what it deploys",
            Info::new(versions.to_vec()),
        );
        registry.register("airflowd_http_requests", "Requests that were answered", requests.clone());
        let help = "How long answers took, up to the first byte";
        registry.register_with_unit("airflowd_http_request_duration", help, Unit::Seconds, seconds.clone());
        registry.register("airflowd_operations", "Operations that have ended", operations.clone());
        registry.register("airflowd_environments", "Environments by state", environments.clone());
        let help = "1 if the condition SchedulerHealthy holds of an environment, 0 if not";
        registry.register("airflowd_scheduler_healthy", help, schedulers.clone());
        let help = "Memory of the daemon, Local Modal included";
        registry.register_with_unit("process_resident_memory", help, Unit::Bytes, resident.clone());
        registry.register("process_open_fds", "Open files of the daemon", open_files.clone());
        let registry = Arc::new(registry);
        Self { registry, requests, seconds, operations, environments, schedulers, resident, open_files }
    }

    pub fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let (method, route) = (method.to_owned(), route.to_owned());
        self.seconds
            .get_or_create(&RouteLabels { method: method.clone(), route: route.clone() })
            .observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { method, route, status }).inc();
    }

    pub fn operation(&self, kind: OperationKind, state: OperationState) {
        let labels = OperationLabels { kind: lower(kind), state: lower(state) };
        self.operations.get_or_create(&labels).inc();
    }

    /// Renders all metrics, including those read at this moment.
    pub fn text(&self, environments: &[Environment]) -> Result<String, std::fmt::Error> {
        self.environments.clear();
        self.schedulers.clear();
        for environment in environments {
            self.environments.get_or_create(&StateLabels { state: environment.state.to_string() }).inc();
            if let Some(scheduler) = environment.condition(ConditionKind::SchedulerHealthy) {
                let labels = EnvironmentLabels { environment: environment.name.to_string() };
                self.schedulers.get_or_create(&labels).set(scheduler.status.into());
            }
        }
        if let Some(process) = Process::read() {
            self.resident.set(process.resident_bytes);
            self.open_files.set(process.open_files);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn lower(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

/// The system's figures about this process; absent without `/proc`.
struct Process {
    resident_bytes: i64,
    open_files: i64,
}

impl Process {
    fn read() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: i64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        let open_files = std::fs::read_dir("/proc/self/fd").ok()?.count();
        Some(Self { resident_bytes: kilobytes * 1024, open_files: i64::try_from(open_files).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_in_openmetrics_format() {
        let metrics = Metrics::new();
        metrics.request("GET", "/v1/health", 200, Duration::from_millis(2));
        metrics.operation(OperationKind::Create, OperationState::Failed);
        let text = metrics.text(&[]).expect("text");
        for line in [
            "airflowd_http_requests_total{method=\"GET\",route=\"/v1/health\",status=\"200\"} 1",
            "airflowd_http_request_duration_seconds_bucket{le=\"0.004\",method=\"GET\",route=\"/v1/health\"} 1",
            "airflowd_operations_total{kind=\"create\",state=\"failed\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in {text}");
        }
    }
}
