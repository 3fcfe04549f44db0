//! Every environment variable that the daemon and the CLI read.

/// One folder for everything of the daemon (several daemons, tests).
pub const HOME: &str = "AIRFLOW_SERVERLESS_HOME";

/// The Python interpreter (3.11 or newer) from which the runtime is made; `python3` of the PATH if unset.
pub const PYTHON: &str = "AIRFLOW_SERVERLESS_PYTHON";

/// Where Python runtimes are kept; below the daemon's data folder if unset. Several daemons can share one.
pub const RUNTIMES: &str = "AIRFLOW_SERVERLESS_RUNTIMES";

/// The environment that CLI commands use without `--env`.
pub const ENVIRONMENT: &str = "AIRFLOW_SERVERLESS_ENV";

/// The `airflowd` binary that the CLI starts; the one beside the CLI if unset.
pub const DAEMON: &str = "AIRFLOW_SERVERLESS_DAEMON";

/// What the daemon logs, in the syntax of `tracing`'s filters; `info` if unset.
pub const LOG: &str = "AIRFLOW_SERVERLESS_LOG";

/// Whether a variable says where packages come from, and how they are reached: those of uv, of proxies and of
/// certificates.
pub fn is_of_packages(name: &str) -> bool {
    const NAMES: [&str; 6] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
    name.starts_with("UV_") || NAMES.contains(&name.to_uppercase().as_str())
}
