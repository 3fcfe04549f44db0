//! uv, the program that resolves and installs packages, and the processes of a build.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
};

use super::{BuildError, log::Log, recipe::is_of_installers};
use crate::{
    containers::{ARGUMENTS_VARIABLE, kill_left_overs},
    files::blocking,
};

/// Variables of the server's own environment that say how indexes are reached. Nothing else of it gets into a build or a
/// container.
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

/// How uv is started.
#[derive(Debug, Clone)]
pub struct Uv(Vec<OsString>);

impl Uv {
    /// Looks beside the interpreter, on the search path, and among the interpreter's packages.
    pub async fn find(python: &Path) -> Result<Self, BuildError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let beside = python.parent().map(Path::to_owned);
        let found = beside.into_iter().chain(env::split_paths(&path)).map(|folder| folder.join("uv"));
        if let Some(program) = found.into_iter().find(|program| program.is_file()) {
            return Ok(Self(vec![program.into()]));
        }
        let mut module = Command::new(python);
        module.args(["-I", "-m", "uv", "--version"]).env_clear().stdin(Stdio::null());
        if module.output().await.is_ok_and(|output| output.status.success()) {
            return Ok(Self(vec![python.into(), "-I".into(), "-m".into(), "uv".into()]));
        }
        let missing =
            "this image needs packages that its interpreter does not have, and there is no uv to install them";
        Err(BuildError(format!("{missing}: run `{} -m pip install uv`, and deploy again", python.display())))
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

/// Where uv keeps wheels and interpreters: where it does for this user, so that nothing is downloaded twice.
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

/// Variables with uv's names for those that pip has others for.
pub fn with_names_of_uv(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
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

/// What the server's own environment says of the way to package indexes: their addresses, proxies and certificates.
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
    let mut variables = with_names_of_uv(&server);
    // requests and poetry have another name for it.
    if let Some(certificates) = variables.get("SSL_CERT_FILE").cloned() {
        variables.entry("REQUESTS_CA_BUNDLE".to_owned()).or_insert(certificates);
    }
    variables
}

/// What every process of a build finds: the way to the indexes, and nothing else of the server's environment.
pub fn base_variables(build_folder: &Path) -> BTreeMap<String, OsString> {
    let mut variables = own_variables();
    variables.extend(network_variables().into_iter().map(|(name, value)| (name, value.into())));
    let mut set = |name: &str, value: OsString| variables.insert(name.to_owned(), value);
    set("HOME", build_folder.join("home").into());
    set("TMPDIR", build_folder.join("tmp").into());
    set("LANG", "C.UTF-8".into());
    set("UV_NO_PROGRESS", "1".into());
    set("UV_PYTHON_DOWNLOADS", "never".into());
    // Marks what a build starts as ours: the next start of the server ends what is left of it.
    set(ARGUMENTS_VARIABLE, build_folder.join("build").into());
    variables
}

/// Whether a variable of a recipe may steer the installers.
pub fn steers(name: &str) -> bool {
    is_of_installers(name) && !matches!(name, "UV_CACHE_DIR" | "UV_PYTHON" | "UV_PYTHON_DOWNLOADS" | "UV_SYSTEM_PYTHON")
}

/// Runs a command of a build in a process group of its own, with what it prints in the log, and returns whether it
/// succeeded. All that it started ends with it, or when it is no longer waited for.
pub async fn run(mut command: Command, build_folder: &Path, log: &Log) -> Result<bool, BuildError> {
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|error| BuildError(format!("{program} could not be run: {error}")))?;
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let folder = build_folder.to_owned();
    let end = async move {
        let status = child.wait().await;
        // What it left in the background would keep the pipes open.
        drop(group);
        let ended = blocking(move || {
            kill_left_overs(&folder);
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
            Some(Err(error)) => tracing::warn!(%error, "the processes of a build could not be ended"),
        }
    }
}

async fn follow(output: Option<impl AsyncRead + Unpin>, log: &Log) {
    let Some(output) = output else { return };
    let mut lines = BufReader::new(output).split(b'\n');
    // A read error means that the process is gone, which its status tells better.
    while let Ok(Some(line)) = lines.next_segment().await {
        log.say(&String::from_utf8_lossy(&line));
    }
}
