//! Opens a page in the user's browser.
//!
//! The URL contains a token, and other users can see the arguments of processes. So the browser is given a file that
//! only the user can read, which redirects to the page.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use airflow_serverless_api::home::Home;

use crate::{home_lock, printer::Printer};

const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// An opened page; dropping this removes the redirect file.
pub struct Browser {
    file: PathBuf,
}

impl Browser {
    /// Opens the page. The URL was printed before, so a failure is harmless.
    pub fn open(url: &str, printer: &Printer) -> Option<Self> {
        let home = home_lock::resolve_running_home(&Home::from_environment().ok()?);
        let browser = Self { file: home.runtime.join(format!("ui-{}.html", std::process::id())) };
        match browser.write(url).and_then(|()| start(&browser.file)) {
            Ok(()) => Some(browser),
            Err(error) => {
                printer.note(&format!("no browser was opened ({OPENER}: {error}): open the URL yourself"));
                None
            }
        }
    }

    fn write(&self, url: &str) -> io::Result<()> {
        // Left by an earlier process with the same id.
        remove(&self.file)?;
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&self.file)?;
        file.write_all(page(url).as_bytes())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The folder is removed with the session, and the token is useless once the UI has ended.
        let _ = remove(&self.file);
    }
}

fn start(file: &Path) -> io::Result<()> {
    let mut command = Command::new(OPENER);
    command.arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(drop)
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn page(url: &str) -> String {
    let url = url.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    format!(
        "<!doctype html><meta charset=\"utf-8\"><meta name=\"referrer\" content=\"no-referrer\">\
         <meta http-equiv=\"refresh\" content=\"0; url={url}\"><title>Airflow</title><a href=\"{url}\">Airflow</a>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_escaped_in_the_html_page() {
        let page = page("http://127.0.0.1:1/?a=\"><script>&b");
        assert!(page.contains("url=http://127.0.0.1:1/?a=&quot;>&lt;script>&amp;b\">"), "{page}");
    }
}
