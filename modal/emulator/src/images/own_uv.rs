//! The server's own uv: installed into the data folder if this machine has none.
//!
//! It is installed by pip in a virtual environment, as the documentation of Python describes. Its folder gets its name
//! once it is complete, so that an interrupted installation is never used.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::{
    BuildError, clear,
    log::Log,
    uv::{pip_variables, run},
};
use crate::{
    error::Error,
    files::{blocking, sync_file_system},
    options::Options,
    process::ARGUMENTS_VARIABLE,
};

/// The requirement that pip installs.
pub const UV: &str = "uv==0.13.9";
/// Maximum number of lines of output, of venv and pip, in an error.
const TAIL: usize = 10;
/// Settings that would make pip install uv elsewhere, or not at all, and settings of Python that affect pip.
const MISLEADING: [&str; 8] =
    ["PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_DRY_RUN", "PIP_PYTHON", "PYTHONHOME", "PYTHONPATH"];

/// The program. It is installed if it does not exist yet, which is noted in `build_log`. One caller at a time.
pub async fn ensure(options: &Options, python: &Path, build_log: &Log) -> Result<PathBuf, BuildError> {
    let folder = options.data_dir.join("uv");
    let place = folder.join(UV.replace("==", "-"));
    let program = place.join("bin/uv");
    if program.is_file() {
        return Ok(program);
    }
    let note = format!("this machine has no uv: installing {UV} into {}", folder.display());
    tracing::warn!("{note}");
    build_log.write(&note);
    install(&folder, &place, python).await.map_err(|BuildError(why)| {
        let why = why.trim_end();
        let (folder, python) = (folder.display(), python.display());
        BuildError(format!(
            "this image needs packages, and there is no uv to install them. Installing {UV} into {folder} failed:\n\
             {why}\n\
             hint: set PIP_INDEX_URL or HTTPS_PROXY for the server if pip needs them, or install uv yourself with \
             `{python} -m pip install uv`; then deploy again"
        ))
    })?;
    Ok(program)
}

async fn install(folder: &Path, place: &Path, python: &Path) -> Result<(), BuildError> {
    // Removes an older version, or an interrupted installation.
    let old = folder.to_owned();
    blocking(move || clear(&old)).await?;
    let partial = folder.join("partial");
    let log = Log::default();
    let mut venv = Command::new(python);
    venv.args(["-m", "venv"]).arg(&partial);
    run_logged(venv, folder, &log).await?;
    let mut pip = Command::new(partial.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
    pip.args(["--only-binary=:all:", UV]).envs(pip_variables());
    run_logged(pip, folder, &log).await?;
    let (partial, place) = (partial, place.to_owned());
    blocking(move || {
        sync_file_system(&partial).and_then(|()| fs::rename(&partial, &place)).map_err(Error::io("install", "uv"))
    })
    .await?;
    Ok(())
}

async fn run_logged(mut command: Command, folder: &Path, log: &Log) -> Result<(), BuildError> {
    for name in MISLEADING {
        command.env_remove(name);
    }
    // So that the next start of the server kills it.
    command.env(ARGUMENTS_VARIABLE, folder.join("install")).current_dir(env::temp_dir());
    if run(command, folder, log).await? { Ok(()) } else { Err(BuildError(log.tail(TAIL))) }
}
