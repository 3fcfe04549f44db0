//! Grammar of `auth`.

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub enum Auth {
    /// Store a Modal token
    ///
    /// Taken from MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, from Modal's configuration file, or asked for.
    Login(Login),
    /// Show credential status
    Status,
    /// Remove the stored credentials
    Logout,
}

#[derive(Args)]
pub struct Login {
    /// Token id; the secret is read from standard input (`--token-secret -`) or asked for
    #[arg(long, value_name = "ID", conflicts_with = "profile")]
    pub token_id: Option<String>,
    /// `-` reads the token secret from standard input
    #[arg(long, value_name = "-", value_parser = ["-"], requires = "token_id")]
    pub token_secret: Option<String>,
    /// Profile of Modal's configuration file (`~/.modal.toml`) [default: the active one]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Server URL [default: Modal's cloud]
    #[arg(long, value_name = "URL")]
    pub server_url: Option<String>,
    /// Store the token without checking it with the server
    #[arg(long)]
    pub no_check: bool,
}
