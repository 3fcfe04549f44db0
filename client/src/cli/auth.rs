//! Grammar of `auth`.

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub enum Auth {
    /// Give the daemon a token of Modal: from MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, Modal's own configuration, or asked for
    Login(Login),
    /// Tell whether the daemon has credentials, and whose
    Status,
    /// Have the daemon forget its credentials
    Logout,
}

#[derive(Args)]
pub struct Login {
    /// The token's id; its secret is read from standard input (`--token-secret -`) or asked for
    #[arg(long, value_name = "ID", conflicts_with = "profile")]
    pub token_id: Option<String>,
    /// `-`: read the token's secret from standard input
    #[arg(long, value_name = "-", value_parser = ["-"], requires = "token_id")]
    pub token_secret: Option<String>,
    /// Take this profile of Modal's configuration (`~/.modal.toml`), not the active one
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Another server than Modal's own
    #[arg(long, value_name = "URL")]
    pub server_url: Option<String>,
    /// Do not ask the server whether it takes the token
    #[arg(long)]
    pub no_check: bool,
}
