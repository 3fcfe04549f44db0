//! `auth`: the daemon's credentials for Modal's cloud.

use std::{collections::BTreeMap, io::Read, path::PathBuf};

use airflow_serverless_api::{
    Secret,
    credentials::{CredentialsStatus, PutCredentials, StoreCredentials},
};
use serde::Deserialize;

use super::Outcome;
use crate::{
    cli::{Auth, Login},
    error::{CliError, ExitStatus},
    input_file,
    printer::{Printer, date},
    session,
};

/// Size limit of the configuration file of Modal's own tools.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

pub async fn run(command: Auth, printer: &Printer) -> Outcome {
    match command {
        Auth::Login(arguments) => login(arguments, printer).await,
        Auth::Status => {
            let status = session::connect(printer).await?.get_credentials().await?;
            printer.result(&status, describe);
            Ok(ExitStatus::Success)
        }
        Auth::Logout => {
            let daemon = session::connect(printer).await?;
            daemon.delete_credentials().await?;
            printer.result(&daemon.get_credentials().await?, |_| {
                "credentials removed; apps in Modal's cloud keep running".to_owned()
            });
            Ok(ExitStatus::Success)
        }
    }
}

async fn login(arguments: Login, printer: &Printer) -> Outcome {
    let how = StoreCredentials { skip_check: arguments.no_check };
    let credentials = find(arguments, printer)?;
    let status = session::connect(printer).await?.put_credentials(&credentials, how).await?;
    printer.result(&status, |status| format!("{}\nnew environments run in Modal's cloud", describe(status)));
    Ok(ExitStatus::Success)
}

fn describe(status: &CredentialsStatus) -> String {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    if !status.configured {
        return "no credentials: environments run on Local Modal; `airflow-serverless auth login` stores some"
            .to_owned();
    }
    format!(
        "token      {}\nserver     {}\nworkspace  {}\nsince      {} UTC",
        known(&status.token_id),
        known(&status.server_url),
        known(&status.workspace),
        date(status.updated_at)
    )
}

/// Finds the token: from the arguments, from the sources of Modal's own tools, or from the user's input.
fn find(arguments: Login, printer: &Printer) -> Result<PutCredentials, CliError> {
    let Login { token_id, token_secret, profile, server_url, .. } = arguments;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(token_id) = token_id {
        let token_secret = if token_secret.is_some() { from_stdin()? } else { ask_secret(printer)? };
        return Ok(PutCredentials { token_id, token_secret, server_url });
    }
    if profile.is_none()
        && let (Some(token_id), Some(secret)) = (variable("MODAL_TOKEN_ID"), variable("MODAL_TOKEN_SECRET"))
    {
        let server_url = server_url.or_else(|| variable("MODAL_SERVER_URL"));
        printer.note("using the token in MODAL_TOKEN_ID");
        return Ok(PutCredentials { token_id, token_secret: Secret::new(secret), server_url });
    }
    if let Some((name, found)) = from_modal(profile.as_deref())? {
        printer.note(&format!("using the token of Modal's profile {name}"));
        let token_secret = Secret::new(found.token_secret);
        return Ok(PutCredentials {
            token_id: found.token_id,
            token_secret,
            server_url: server_url.or(found.server_url),
        });
    }
    let token_id = printer.ask("Token id (ak-…): ").ok_or_else(|| {
        let hint = "set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or give --token-id and --token-secret -";
        CliError::input("no Modal token found", Vec::new(), Some(hint))
    })?;
    Ok(PutCredentials { token_id, token_secret: ask_secret(printer)?, server_url })
}

fn from_stdin() -> Result<Secret, CliError> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|error| CliError::unexpected("reading the token's secret", error))?;
    Ok(Secret::new(text.trim()))
}

fn ask_secret(printer: &Printer) -> Result<Secret, CliError> {
    let nobody = || {
        CliError::input(
            "there is no terminal to ask for the secret",
            Vec::new(),
            Some("`--token-secret -` reads it from standard input"),
        )
    };
    Ok(Secret::new(printer.ask_secret("Token secret (as-…): ").ok_or_else(nobody)?))
}

/// A profile of Modal's configuration.
#[derive(Deserialize)]
struct Profile {
    token_id: String,
    token_secret: String,
    server_url: Option<String>,
    #[serde(default)]
    active: bool,
}

/// Returns the profile of this name, or the one that Modal's own tools would use.
fn from_modal(wanted: Option<&str>) -> Result<Option<(String, Profile)>, CliError> {
    let Some((path, is_chosen)) = modal_config() else { return Ok(None) };
    let shown = path.display();
    let missing = |name: &str| CliError::input(format!("{shown} has no profile {name} with a token"), Vec::new(), None);
    if matches!(path.try_exists(), Ok(false)) {
        return wanted.map_or(Ok(None), |name| Err(missing(name)));
    }
    // An explicitly named file may be a pipe.
    let read = if is_chosen { input_file::read_any } else { input_file::read };
    let unreadable = |why| CliError::input(format!("{shown} cannot be read: {why}"), Vec::new(), None);
    let text = read(&path, MAX_CONFIG_BYTES).map_err(unreadable)?;
    let text = String::from_utf8(text).map_err(|_| unreadable("it is not UTF-8 text".to_owned()))?;
    // The parser's message could repeat a secret.
    let invalid = |_| CliError::input(format!("{shown} is not TOML"), Vec::new(), None);
    let tables: BTreeMap<String, toml::Value> = toml::from_str(&text).map_err(invalid)?;
    let mut profiles: BTreeMap<String, Profile> =
        tables.into_iter().filter_map(|(name, table)| Some((name, table.try_into().ok()?))).collect();
    let named = wanted.map(str::to_owned).or_else(|| std::env::var("MODAL_PROFILE").ok());
    let active = || profiles.iter().find(|(_, profile)| profile.active).map(|(name, _)| name.clone());
    let name = named.or_else(active).unwrap_or_else(|| "default".to_owned());
    match (profiles.remove(&name), wanted) {
        (Some(profile), _) => Ok(Some((name, profile))),
        (None, None) => Ok(None),
        (None, Some(wanted)) => Err(missing(wanted)),
    }
}

/// Returns the configuration file of Modal's own tools, and whether the user has chosen it.
fn modal_config() -> Option<(PathBuf, bool)> {
    let chosen = std::env::var_os("MODAL_CONFIG_PATH").map(|path| (PathBuf::from(path), true));
    chosen.or_else(|| std::env::var_os("HOME").map(|home| (PathBuf::from(home).join(".modal.toml"), false)))
}
