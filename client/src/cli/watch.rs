//! `watch`: folders whose files are uploaded as they are saved.

use std::path::PathBuf;

use airflow_serverless_api::{environment::EnvironmentName, variables};
use clap::{Args, Subcommand};

use super::Environment;

#[derive(Subcommand)]
pub enum Watch {
    /// Upload what is in a folder, and from then on what is saved there
    Add(AddWatch),
    /// List the watches, with what waits and what has to be corrected
    List {
        /// Only those of this environment
        #[arg(long = "env", value_name = "NAME", env = variables::ENVIRONMENT)]
        environment: Option<EnvironmentName>,
    },
    /// End a watch; its files stay on the Volume
    Remove {
        /// The folder, or the id of the watch
        #[arg(value_name = "DIR")]
        watch: PathBuf,
        /// The environment, where several watch the folder
        #[arg(long = "env", value_name = "NAME", env = variables::ENVIRONMENT)]
        environment: Option<EnvironmentName>,
    },
}

#[derive(Args)]
pub struct AddWatch {
    #[command(flatten)]
    pub environment: Environment,
    /// The folder; what is below it comes below `dags/` on the Volume
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Remove from the Volume what was uploaded from the folder and is deleted there
    #[arg(long)]
    pub delete: bool,
    /// Only files that match, in the syntax of `.gitignore`; can be given several times
    #[arg(long = "pattern", value_name = "GLOB")]
    pub patterns: Vec<String>,
    /// Wait until all is uploaded; the exit code is 0 only if nothing has to be corrected
    #[arg(long)]
    pub wait: bool,
}
