//! The `airflowd` binary: settings, logging, and the run of the daemon.

use std::{
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use airflow_serverless_api::home::{Home, UNUSABLE};
use airflowd::{
    http,
    lifecycle::{self, LifecycleError, Places},
    listeners::Activation,
    logging::Logging,
    loopback::LoopbackAddress,
    report::chain,
    settings::Settings,
    token,
};
use anyhow::Context;
use clap::Parser;

/// The local daemon in front of serverless Airflow. It runs in the foreground; `airflow-serverless daemon start`
/// starts it in the background.
#[derive(Parser)]
#[command(name = "airflowd", version)]
#[command(after_help = "Exit codes: 0 stopped · 1 failed · 75 another daemon has this home · 78 its settings or its \
                        home cannot be used · 130 stopped at once.\nSIGHUP makes it read airflowd.yaml again.")]
struct Arguments {
    /// Write the log to this file, of which at most 50 MiB are kept, instead of to stderr or the journal
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
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

/// Time limit for blocking work at exit whose result is no longer needed.
const LAST_WORK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            // One line including causes, as the parent process shows the end of this output.
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
    keep_heaps_few();
    let settings = match Settings::read(&home.config) {
        Ok(settings) => settings,
        Err(error) => return Ok(unusable(&error)),
    };
    let logging = match Logging::start(&settings.log, arguments.log_file) {
        Ok(logging) => logging,
        Err(error) => return Ok(unusable(&error)),
    };
    // Before there are other threads: it changes the environment.
    let places = Places { port: arguments.listen, activation: Activation::from_environment() };
    let runtime = airflowd::modal::runtime().context("starting the runtime")?;
    let last_words = logging.last_words();
    let ended = runtime.block_on(lifecycle::run(home, settings, logging, places));
    runtime.shutdown_timeout(LAST_WORK);
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error @ LifecycleError::AlreadyRunning { .. }) => {
            // Not a failure of this home's daemon: the parent process finds the other one.
            eprintln!("{error}");
            Ok(error.exit_code().into())
        }
        Err(error) => {
            last_words.tell(&chain(&error));
            Ok(error.exit_code().into())
        }
    }
}

/// Re-executes this program in place, with a limit on heaps.
///
/// glibc creates up to eight heaps per processor, one for each allocating thread, and a heap returns no memory while
/// anything at its end is in use: within weeks a daemon would grow by half. The limit is read when a process starts.
fn keep_heaps_few() {
    const HEAPS: &str = "MALLOC_ARENA_MAX";
    if !cfg!(target_env = "gnu") || std::env::var_os(HEAPS).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // `exec` returns only on failure: this process then continues, with a larger footprint.
    let _ = again.args(arguments).env(HEAPS, "2").exec();
}

/// Returns an exit code after which the service manager does not retry, as that would fail again.
fn unusable(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {}", chain(error));
    UNUSABLE.into()
}
