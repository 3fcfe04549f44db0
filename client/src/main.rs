//! `airflow-serverless`: the command line in front of `airflowd`.
//!
//! [`cli`] is the grammar, [`commands`] has one file per noun. A [`session`] connects to the [`daemon`], which it starts
//! if necessary, directly or through a [`service`] manager. [`config`] reads `config.yaml`, and only the [`printer`] prints.

mod browser;
mod cli;
mod commands;
mod config;
mod daemon;
mod daemon_status;
mod error;
mod explain;
mod follow;
mod home_lock;
mod input_file;
mod logs;
mod printer;
mod service;
mod session;
mod start;
mod stream;

use std::process::ExitCode;

use crate::{
    cli::{Cli, Command, Daemon},
    printer::Printer,
};

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return printer::usage(&error),
    };
    let printer = Printer::new(cli.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return printer.failure(&error::CliError::unexpected("starting", error)),
    };
    // A version mismatch does not matter to a command that stops or replaces the daemon.
    let replaces_daemon = matches!(&cli.command, Command::Daemon(Daemon::Stop | Daemon::Restart | Daemon::Install));
    let code = match runtime.block_on(commands::run(cli.command, &printer)) {
        Ok(status) => printer.lost().map_or_else(|| status.into(), |failure| printer.failure(&failure)),
        Err(failure) => printer.failure(&failure),
    };
    if let Some(version) = daemon::other_version().filter(|_| !replaces_daemon) {
        printer.warning(&format!(
            "airflowd {version} answered, and this is airflow-serverless {}; `airflow-serverless daemon restart` \
             starts the one that belongs to it",
            env!("CARGO_PKG_VERSION")
        ));
    }
    code
}
