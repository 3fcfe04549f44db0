//! Deploys the functions with the unmodified Modal SDK, in a separate process.

use std::process::Stdio;

use airflow_serverless_api::{config::Config, environment::EnvironmentName};
use serde_json::json;
use tokio::process::Command;

use super::{Runtime, RuntimeError, run};
use crate::{modal::Server, progress::Progress};

impl Runtime {
    /// Deploys the environment's App to a Modal server.
    pub async fn deploy(
        &self,
        environment: &EnvironmentName,
        config: &Config,
        server: &Server,
        progress: &Progress,
    ) -> Result<(), RuntimeError> {
        let mut command = self.sdk_command("airflow_serverless.deploy", environment, config, server);
        // It must end with this daemon, so that an old deployment cannot overwrite a newer one.
        command.arg("--attached").stdin(Stdio::piped());
        run("modal deploy", command, progress).await.map(|_| ())
    }

    /// Builds a command that runs a module of the package with the SDK, for one environment on a Modal server.
    pub(super) fn sdk_command(
        &self,
        module: &str,
        environment: &EnvironmentName,
        config: &Config,
        server: &Server,
    ) -> Command {
        let settings = json!({
            "environment": environment,
            "database": {"type": config.database.kind, "root_certificate": config.database.root_certificate},
            "scheduler": config.scheduler,
            "executor": config.executor,
            "airflow": config.airflow,
            "env": config.secret_variables().map(|variable| variable.name).collect::<Vec<_>>(),
        });
        let mut command = self.command();
        command
            .args(["-m", module])
            .env("AIRFLOW_SERVERLESS_SETTINGS", settings.to_string())
            .env("MODAL_SERVER_URL", &server.url)
            .env("MODAL_TOKEN_ID", &server.token.id)
            .env("MODAL_TOKEN_SECRET", &server.token.secret)
            // The user's profile must not choose another server or environment.
            .env("MODAL_CONFIG_PATH", "/dev/null");
        if !server.environment.is_empty() {
            command.env("MODAL_ENVIRONMENT", &server.environment);
        }
        command
    }
}
