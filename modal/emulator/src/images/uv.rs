//! uv, the program that resolves and installs packages, and the processes of a build.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    time::timeout,
};

use super::{BuildError, log::Log, own_uv, recipe::is_installer_variable};
use crate::{
    files::blocking,
    process::{ARGUMENTS_VARIABLE, kill_orphans},
    shared::Shared,
};

/// Variables of the server's own environment about package indexes. Builds and containers get no others.
const NETWORK: &str = "UV_INDEX_URL UV_DEFAULT_INDEX UV_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_NO_INDEX UV_INDEX_STRATEGY \
    UV_INSECURE_HOST UV_NATIVE_TLS UV_SYSTEM_CERTS UV_KEYRING_PROVIDER UV_HTTP_TIMEOUT UV_HTTP_RETRIES UV_OFFLINE UV_CONFIG_FILE \
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY";

/// pip's variables and uv's names for them.
const OF_PIP: [(&str, &str); 6] = [
    ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
    ("PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL"),
    ("PIP_FIND_LINKS", "UV_FIND_LINKS"),
    ("PIP_NO_INDEX", "UV_NO_INDEX"),
    ("PIP_TRUSTED_HOST", "UV_INSECURE_HOST"),
    ("PIP_CERT", "SSL_CERT_FILE"),
];

/// uv's variables and pip's names for them.
const OF_UV: [(&str, &str); 9] = [
    ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"),
    ("UV_INDEX_URL", "PIP_INDEX_URL"),
    ("UV_INDEX", "PIP_EXTRA_INDEX_URL"),
    ("UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
    ("UV_FIND_LINKS", "PIP_FIND_LINKS"),
    ("UV_NO_INDEX", "PIP_NO_INDEX"),
    ("UV_OFFLINE", "PIP_NO_INDEX"),
    ("UV_INSECURE_HOST", "PIP_TRUSTED_HOST"),
    ("SSL_CERT_FILE", "PIP_CERT"),
];

/// How long a program may take to print its version.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The command line of uv.
#[derive(Debug, Clone)]
pub struct Uv(Vec<OsString>);

impl Uv {
    /// Finds uv beside the interpreter, on the search path, where its installers put it, or among the interpreter's
    /// packages. If it is nowhere, it is installed into the data folder.
    pub async fn find_or_install(shared: &Shared, python: &Path, log: &Log) -> Result<Self, BuildError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let home = env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let installers = home.iter().flat_map(|home| [home.join(".local/bin"), home.join(".cargo/bin")]);
        let folders = python.parent().map(Path::to_owned).into_iter().chain(env::split_paths(&path)).chain(installers);
        let programs = folders.map(|folder| folder.join("uv")).filter(|program| program.is_file());
        let module = vec![python.into(), "-I".into(), "-m".into(), "uv".into()];
        for found in programs.map(|program| vec![program.into()]).chain([module]) {
            let uv = Self(found);
            if uv.runs().await {
                return Ok(uv);
            }
        }
        let _one_at_a_time = shared.images.own_uv.lock().await;
        Ok(Self(vec![own_uv::ensure(&shared.options, python, log).await?.into()]))
    }

    /// Whether it runs: a program of that name may be for another machine, or a shim without its target.
    async fn runs(&self) -> bool {
        let mut command = self.command(&["--version"]);
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(ANSWER_LIMIT, command.output()).await;
        output.is_ok_and(|output| output.is_ok_and(|output| output.status.success()))
    }

    /// A command of uv.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.0[0]);
        command.args(&self.0[1..]).args(arguments);
        command
    }

    /// An installed interpreter of a version.
    pub async fn find_python(&self, version: &str, folder: &Path) -> Option<PathBuf> {
        let mut command = self.command(&["python", "find", "--no-project", "--no-python-downloads", version]);
        command.env_clear().envs(own_variables()).env("PATH", env::var_os("PATH").unwrap_or_default());
        let output = command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).output().await.ok()?;
        let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        (output.status.success() && path.is_file()).then_some(path)
    }
}

/// The folders where uv keeps wheels and interpreters: those of this user, so that nothing is downloaded twice.
fn own_variables() -> BTreeMap<String, OsString> {
    let home = |variable: &str, below_home: &str, name: &str| {
        let folder = env::var_os(variable).map(PathBuf::from);
        folder.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(below_home))).map(|folder| folder.join(name))
    };
    let cache = env::var_os("UV_CACHE_DIR").or_else(|| Some(home("XDG_CACHE_HOME", ".cache", "uv")?.into()));
    let pythons = env::var_os("UV_PYTHON_INSTALL_DIR")
        .or_else(|| Some(home("XDG_DATA_HOME", ".local/share", "uv/python")?.into()));
    [("UV_CACHE_DIR", cache), ("UV_PYTHON_INSTALL_DIR", pythons)]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// Adds uv's names of variables that pip calls otherwise.
pub fn with_uv_names(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut renamed = variables.clone();
    for (pip, uv) in OF_PIP {
        if let Some(value) = variables.get(pip)
            && !(uv == "UV_FIND_LINKS" && !value.contains("://") && !Path::new(value).exists())
        {
            renamed.entry(uv.to_owned()).or_insert_with(|| value.clone());
        }
    }
    renamed
}

/// The variables of the server's own environment about package indexes with pip's names, from uv's.
pub fn pip_variables() -> BTreeMap<String, String> {
    let server = env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    with_pip_names(&server.collect())
}

/// pip's variables for those that are set by uv's names only.
fn with_pip_names(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut renamed = BTreeMap::new();
    for (uv, pip) in OF_UV {
        if let Some(value) = variables.get(uv).filter(|value| !value.is_empty())
            && !variables.contains_key(pip)
        {
            // uv's lists are separated by commas or blanks, and indexes may have names.
            let one = |part: &str| match part.split_once('=') {
                Some((name, url)) if !name.contains([':', '/']) && url.contains("://") => url.to_owned(),
                _ => part.to_owned(),
            };
            let parts = value.split(|c: char| c.is_whitespace() || (c == ',' && pip == "PIP_FIND_LINKS"));
            let value = parts.filter(|part| !part.is_empty()).map(one).collect::<Vec<_>>().join(" ");
            renamed.entry(pip.to_owned()).or_insert(value);
        }
    }
    renamed
}

/// The variables of the server's own environment about package indexes: addresses, proxies and certificates.
pub fn network_variables() -> BTreeMap<String, String> {
    let server: BTreeMap<String, String> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| {
            let upper = name.to_ascii_uppercase();
            NETWORK.split(' ').any(|known| known == upper)
                || upper.starts_with("UV_INDEX_")
                || OF_PIP.iter().any(|(pip, _)| *pip == upper)
        })
        .collect();
    let mut variables = with_uv_names(&server);
    // requests and poetry use another name.
    if let Some(certificates) = variables.get("SSL_CERT_FILE").cloned() {
        variables.entry("REQUESTS_CA_BUNDLE".to_owned()).or_insert(certificates);
    }
    variables
}

/// The variables of every process of a build: those about package indexes, and no others of the server's environment.
pub fn base_variables(build_folder: &Path) -> BTreeMap<String, OsString> {
    let mut variables = own_variables();
    variables.extend(network_variables().into_iter().map(|(name, value)| (name, value.into())));
    let mut set = |name: &str, value: OsString| variables.insert(name.to_owned(), value);
    set("HOME", build_folder.join("home").into());
    set("TMPDIR", build_folder.join("tmp").into());
    set("LANG", "C.UTF-8".into());
    set("UV_NO_PROGRESS", "1".into());
    set("UV_PYTHON_DOWNLOADS", "never".into());
    // Marks the processes of a build, so that the next start of the server kills those that are left.
    set(ARGUMENTS_VARIABLE, build_folder.join("build").into());
    variables
}

/// Whether a recipe may set a variable of the installers.
pub fn is_installer_setting(name: &str) -> bool {
    is_installer_variable(name)
        && !matches!(name, "UV_CACHE_DIR" | "UV_PYTHON" | "UV_PYTHON_DOWNLOADS" | "UV_SYSTEM_PYTHON")
}

/// Runs a command of a build in its own process group, with its output in the log; returns whether it succeeded. All
/// processes that it started end with it, or when the future is dropped.
pub async fn run(mut command: Command, build_folder: &Path, log: &Log) -> Result<bool, BuildError> {
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|error| BuildError(format!("{program} could not be run: {error}")))?;
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let folder = build_folder.to_owned();
    let end = async move {
        let status = child.wait().await;
        // Background processes would keep the pipes open.
        drop(group);
        let ended = blocking(move || {
            kill_orphans(&folder);
            Ok(())
        });
        (status, ended.await)
    };
    let ((), (), (status, ended)) = tokio::join!(follow(stdout, log), follow(stderr, log), end);
    ended?;
    let status = status.map_err(|error| BuildError(format!("{program} was lost: {error}")))?;
    Ok(status.success())
}

struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        match self.0.map(|leader| kill_process_group(leader, Signal::KILL)) {
            None | Some(Ok(()) | Err(rustix::io::Errno::SRCH)) => {}
            Some(Err(error)) => tracing::warn!(%error, "the processes of a build could not be killed"),
        }
    }
}

async fn follow(output: Option<impl AsyncRead + Unpin>, log: &Log) {
    let Some(output) = output else { return };
    let mut lines = BufReader::new(output).split(b'\n');
    // A read error means that the process has ended, which its status describes better.
    while let Ok(Some(line)) = lines.next_segment().await {
        log.write(&String::from_utf8_lossy(&line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pip(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        with_pip_names(&variables).into_iter().collect()
    }

    fn pairs(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn uv_index_settings_are_passed_to_pip() {
        let index = "https://me:pw@host/simple?a=b";
        assert_eq!(pip(&[("UV_DEFAULT_INDEX", index)]), pairs(&[("PIP_INDEX_URL", index)]));
        assert_eq!(
            pip(&[("UV_DEFAULT_INDEX", "own=https://a/s"), ("UV_INDEX_URL", "https://b/s"), ("UV_OFFLINE", "1")]),
            pairs(&[("PIP_INDEX_URL", "https://a/s"), ("PIP_NO_INDEX", "1")])
        );
        assert_eq!(
            pip(&[("UV_INDEX", "x=https://a/s https://b/s"), ("UV_FIND_LINKS", "/a,/b=c")]),
            pairs(&[("PIP_EXTRA_INDEX_URL", "https://a/s https://b/s"), ("PIP_FIND_LINKS", "/a /b=c")])
        );
    }

    #[test]
    fn pip_variables_override_uv_variables() {
        assert_eq!(pip(&[("UV_INDEX_URL", "https://a/s"), ("PIP_INDEX_URL", "https://b/s"), ("UV_NO_INDEX", "")]), []);
    }
}
