//! `daemon`, and what else is about this installation.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;

#[derive(Subcommand)]
pub enum Daemon {
    /// Start the daemon in the background, unless it runs
    Start,
    /// Stop the daemon; what it keeps is there when it starts again
    Stop,
    /// Stop the daemon if it runs, and start it: after an upgrade, for one
    Restart,
    /// Tell whether the daemon runs, and where
    Status,
    /// Print the token that requests to a port of the daemon need (`listen` in airflowd.yaml, or `airflowd --listen`)
    Token {
        /// Make a new one; the old one is refused from now on
        #[arg(long)]
        rotate: bool,
    },
    /// Show the end of the daemon's log
    Logs(Logs),
    /// Let the system start the daemon with the session and keep it running: as a systemd user unit, or on macOS as a
    /// launchd agent
    Install,
    /// Take back what `install` did; what the daemon keeps stays
    Uninstall,
}

#[derive(Args)]
pub struct Logs {
    /// Show this many lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub lines: usize,
    /// Go on showing lines as they come, until interrupted
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Args)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

#[derive(Args)]
pub struct Man {
    /// The folder for the pages, one for each command
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
}
