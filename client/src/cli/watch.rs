//! Grammar of `watch`: folders whose files are uploaded on save.

use std::path::PathBuf;

use airflow_serverless_api::{environment::EnvironmentName, variables};
use clap::{Args, Subcommand};

use super::Environment;

#[derive(Subcommand)]
pub enum Watch {
    /// Sync a folder to an environment, now and on every save
    Add(AddWatch),
    /// List watches with their pending files and errors
    List {
        /// Filter by environment
        #[arg(long = "env", value_name = "NAME", env = variables::ENVIRONMENT)]
        environment: Option<EnvironmentName>,
    },
    /// Stop watching a folder; its files stay on the Volume
    Remove {
        /// Folder or watch id
        #[arg(value_name = "DIR")]
        watch: PathBuf,
        /// Environment, if several watch the folder
        #[arg(long = "env", value_name = "NAME", env = variables::ENVIRONMENT)]
        environment: Option<EnvironmentName>,
    },
}

#[derive(Args)]
pub struct AddWatch {
    #[command(flatten)]
    pub environment: Environment,
    /// Folder to sync to `dags/` on the Volume
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Delete files on the Volume when they are deleted in the folder
    #[arg(long)]
    pub delete: bool,
    /// Sync only files that match, in the syntax of `.gitignore`; may be repeated
    #[arg(long = "pattern", value_name = "GLOB")]
    pub patterns: Vec<String>,
    /// Wait until all files are synced; exit with 1 if any has an error
    #[arg(long)]
    pub wait: bool,
}
