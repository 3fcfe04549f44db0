//! Deploying the functions: the unmodified Modal SDK does it, in a process of its own.

use airflow_serverless_api::environment::{Config, EnvironmentName};
use serde_json::json;

use super::{Runtime, RuntimeError, run};
use crate::progress::Progress;

impl Runtime {
    /// Deploys the environment's App to the Modal server at `server_url`.
    pub async fn deploy(
        &self,
        environment: &EnvironmentName,
        config: &Config,
        server_url: &str,
        progress: &Progress,
    ) -> Result<(), RuntimeError> {
        let settings = json!({
            "environment": environment,
            "database": {"type": config.database.kind},
            "scheduler": config.scheduler,
            "executor": config.executor,
            "airflow": config.airflow,
        });
        let mut command = self.command();
        command
            .args(["-m", "airflow_serverless.deploy"])
            .env("AIRFLOW_SERVERLESS_SETTINGS", settings.to_string())
            .env("MODAL_SERVER_URL", server_url)
            // Local Modal takes any token, but the SDK will not start without one.
            .env("MODAL_TOKEN_ID", "ak-local")
            .env("MODAL_TOKEN_SECRET", "as-local")
            // The user's profile must not choose another server or environment.
            .env("MODAL_CONFIG_PATH", "/dev/null");
        run("modal deploy", command, progress).await.map(|_| ())
    }
}
