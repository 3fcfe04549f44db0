//! `man`: a page for each command, rendered from its help.

use std::path::PathBuf;

use clap::CommandFactory;
use serde::Serialize;

use super::Outcome;
use crate::{
    cli::{Cli, Man},
    error::{CliError, ExitStatus},
    printer::{Printer, counted},
};

#[derive(Serialize)]
struct Pages {
    dir: PathBuf,
    pages: usize,
}

pub fn run(arguments: &Man, printer: &Printer) -> Outcome {
    let dir = arguments.dir.clone();
    let written = std::fs::create_dir_all(&dir).and_then(|()| clap_mangen::generate_to(Cli::command(), &dir));
    let failed = |error| CliError::unexpected(&format!("writing the pages to {}", dir.display()), error);
    written.map_err(failed)?;
    let pages = std::fs::read_dir(&dir).map_err(failed)?.count();
    printer
        .result(&Pages { dir, pages }, |pages| format!("{} in {}", counted(pages.pages, "page"), pages.dir.display()));
    Ok(ExitStatus::Success)
}
