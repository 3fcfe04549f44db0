//! The `airflowd` binary: settings, logging, and the run of the daemon.

use std::{io::IsTerminal, process::ExitCode};

use airflow_serverless_api::{
    home::{ALREADY_RUNNING, Home},
    variables,
};
use airflowd::{
    http,
    lifecycle::{self, LifecycleError},
    listeners::{Activation, LoopbackAddress},
    token,
};
use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// The local daemon in front of serverless Airflow. It runs in the foreground; `airflow-serverless daemon start`
/// starts it in the background.
#[derive(Parser)]
#[command(name = "airflowd", version)]
struct Arguments {
    /// Print the OpenAPI document of the API and exit
    #[arg(long)]
    print_openapi: bool,
    /// Serve the API on this loopback address, too, such as 127.0.0.1:0, to whoever has the token
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<LoopbackAddress>,
    /// Print the token that requests to a port need, which is made if there is none, and exit
    #[arg(long)]
    print_token: bool,
    /// Make a new token, print it and exit; the old one is refused from now on
    #[arg(long)]
    rotate_token: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            // In one line, with its causes, as whoever started this process shows the end of its output.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.print_openapi {
        print!("{}", http::openapi_json()?);
        return Ok(ExitCode::SUCCESS);
    }
    let home = Home::from_environment()?;
    if arguments.print_token || arguments.rotate_token {
        let make = if arguments.rotate_token { token::rotate } else { token::read_or_make };
        println!("{}", make(&home.token())?.expose());
        return Ok(ExitCode::SUCCESS);
    }
    let filter = EnvFilter::try_from_env(variables::LOG).unwrap_or_else(|_| EnvFilter::new("info,notify=error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    http::log_panics();
    // While there is one thread: it changes the environment.
    let activation = Activation::from_environment();
    let runtime = airflowd::modal::runtime().context("starting the runtime")?;
    match runtime.block_on(lifecycle::run(home, arguments.listen, activation)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error @ LifecycleError::AlreadyRunning { .. }) => {
            // No failure of this home's daemon: whoever started this process finds the other one.
            eprintln!("{error}");
            Ok(ExitCode::from(ALREADY_RUNNING))
        }
        Err(error) => Err(error).context("airflowd"),
    }
}
