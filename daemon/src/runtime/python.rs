//! Creates the runtime: a virtual environment with exactly the locked packages, and the package of functions next to
//! it.

use std::{
    ffi::OsString,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use airflow_serverless_api::variables;
use tokio::{process::Command, time::timeout};
use uuid::Uuid;

use super::{Runtime, RuntimeError, run, source, tool};
use crate::{modal::UV, progress::Progress};

/// Written last: a virtual environment without it is incomplete and is recreated.
const COMPLETE: &str = ".complete";
const OLDEST: (u32, u32) = (3, 11);
/// Time limit for the start of an interpreter, in case it is a wrapper that waits for a network.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

impl Runtime {
    /// Creates missing parts of the runtime. Repeating it costs one start of the interpreter.
    pub async fn ensure(&self, progress: &Progress) -> Result<(), RuntimeError> {
        self.unpack_functions()?;
        if self.is_complete().await {
            return Ok(());
        }
        let _lock = self.lock(progress).await?;
        // Another daemon may have created it in the meantime.
        if self.is_complete().await {
            return Ok(());
        }
        let python = find_python().await?;
        remove_folder(&self.venv)?;
        progress.detail("creating the virtual environment");
        let mut venv = tool(&python);
        venv.args(["-m", "venv"]).arg(&self.venv);
        run("python -m venv", venv, progress).await?;
        progress.detail("fetching the installer");
        let mut pip = tool(self.interpreter());
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV]);
        run("pip install uv", pip, progress).await?;
        progress.detail("installing Airflow, Modal and what they need");
        let lock = self.venv.join("requirements.lock");
        write(&lock, source::LOCK.as_bytes())?;
        let mut uv = tool(self.venv.join("bin").join("uv"));
        uv.args(["pip", "install", "--require-hashes", "--compile-bytecode", "--color=never", "--python"])
            .arg(self.interpreter())
            .arg("--requirement")
            .arg(&lock)
            .env("UV_CACHE_DIR", &self.uv_cache);
        run("uv pip install", uv, progress).await?;
        write(&self.venv.join(COMPLETE), b"")
    }

    /// Returns the interpreter from which the runtime is created.
    pub async fn base(&self) -> Result<PathBuf, RuntimeError> {
        find_python().await
    }

    /// Takes the lock for creating the runtime, which daemons may share.
    async fn lock(&self, progress: &Progress) -> Result<File, RuntimeError> {
        let path = self.venv.with_extension("lock");
        let folder = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(folder).map_err(files("creating", folder))?;
        let file = File::create(&path).map_err(files("creating", &path))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(files("locking", &path)(error)),
        }
        progress.detail("waiting for another daemon that makes the same runtime");
        let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
        locked.map_err(io::Error::other).flatten().map_err(files("locking", &path))
    }

    /// Whether all is installed and the interpreter still runs: an upgrade of the system's Python can break it.
    pub async fn is_complete(&self) -> bool {
        if !self.venv.join(COMPLETE).exists() {
            return false;
        }
        let mut interpreter = Command::new(self.interpreter());
        let ran = interpreter.args(["-c", ""]).stdin(Stdio::null()).kill_on_drop(true).status();
        matches!(timeout(ANSWER_LIMIT, ran).await, Ok(Ok(status)) if status.success())
    }

    /// Whether nothing is left to create.
    pub async fn is_ready(&self) -> bool {
        self.functions.exists() && self.is_complete().await
    }

    fn unpack_functions(&self) -> Result<(), RuntimeError> {
        if self.functions.exists() {
            return Ok(());
        }
        // Other processes may do the same: each uses its own folder, and the first rename wins.
        let partial = self.functions.with_extension(format!("{}.partial", Uuid::now_v7()));
        let unpacked = source::package_files()
            .into_iter()
            .try_for_each(|file| write(&partial.join(source::PACKAGE_NAME).join(file.path()), file.contents()))
            .and_then(|()| std::fs::rename(&partial, &self.functions).map_err(files("creating", &self.functions)));
        match unpacked {
            Err(error) => {
                remove_folder(&partial)?;
                if self.functions.exists() { Ok(()) } else { Err(error) }
            }
            done => done,
        }
    }
}

async fn find_python() -> Result<PathBuf, RuntimeError> {
    let candidates: Vec<OsString> = match std::env::var_os(variables::PYTHON) {
        Some(chosen) => vec![chosen],
        None => ["python3", "python3.13", "python3.12", "python3.11"].map(OsString::from).to_vec(),
    };
    for candidate in &candidates {
        if version_of(candidate).await.is_some_and(|version| version >= OLDEST) {
            return Ok(candidate.into());
        }
    }
    let tried: Vec<_> = candidates.iter().map(|candidate| candidate.to_string_lossy()).collect();
    Err(RuntimeError::NoPython { tried: tried.join(", ") })
}

async fn version_of(python: &OsString) -> Option<(u32, u32)> {
    let script = "import sys, venv, ensurepip; print(*sys.version_info[:2])";
    let asked = Command::new(python).args(["-c", script]).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(ANSWER_LIMIT, asked).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn remove_folder(path: &Path) -> Result<(), RuntimeError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(files("removing", path)(error)),
        _ => Ok(()),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), RuntimeError> {
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent).map_err(files("creating", parent))?;
    std::fs::write(path, content).map_err(files("writing", path))
}

fn files(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.display().to_string();
    move |source| RuntimeError::Files { action, path, source }
}
