//! Grammar of `daemon` and of the other commands about this installation.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;

#[derive(Subcommand)]
pub enum Daemon {
    /// Start the daemon in the background if it is not running
    Start,
    /// Stop the daemon; its data stay
    Stop,
    /// Restart the daemon, for example after an upgrade
    Restart,
    /// Show whether the daemon is running, and its paths
    Status,
    /// Print the token for requests to the daemon's port
    ///
    /// The port is set by `listen` in airflowd.yaml or by `airflowd --listen`.
    Token {
        /// Replace the token; the old one becomes invalid at once
        #[arg(long)]
        rotate: bool,
    },
    /// Show the daemon's log
    Logs(Logs),
    /// Install the daemon as a service of the user's session
    ///
    /// As a systemd user unit, or as a launchd agent on macOS. It starts with the session and is restarted if it fails.
    Install,
    /// Uninstall the service; the daemon's data stay
    Uninstall,
}

#[derive(Args)]
pub struct Logs {
    /// Number of lines to show from the end
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub lines: usize,
    /// Follow the log until interrupted
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Args)]
pub struct Completions {
    /// Shell
    pub shell: Shell,
}

#[derive(Args)]
pub struct Man {
    /// Folder for the pages, one for each command
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
}
