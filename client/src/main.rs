//! `airflow-serverless`: the command line in front of `airflowd`.
//!
//! [`cli`] is the grammar, [`commands`] holds one file per noun, [`daemon`] is the way to the daemon (which it starts
//! if need be), [`config`] reads `config.yaml`, and only the [`printer`] prints.

mod cli;
mod commands;
mod config;
mod daemon;
mod failure;
mod follow;
mod printer;
mod start;
mod stream;

use std::process::ExitCode;

use clap::Parser;

use crate::{cli::Cli, printer::Printer};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let printer = Printer::new(cli.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return printer.failure(&failure::Failure::unexpected("starting", error)),
    };
    match runtime.block_on(commands::run(cli.command, &printer)) {
        Ok(status) => status.into(),
        Err(failure) => printer.failure(&failure),
    }
}
