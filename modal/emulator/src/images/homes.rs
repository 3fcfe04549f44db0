//! The files that a function that is a step of an image writes into the private folders of its container. They become a
//! layer of the image.

use std::{fs, io, path::Path};

use crate::{ids::new_id, options::Options, state::Definition};

/// Keeps what the container of such a function wrote until the build takes it.
pub fn keep_written(options: &Options, definition: &Definition, written: &Path) -> io::Result<()> {
    if !definition.function.is_builder_function {
        return Ok(());
    }
    discard_written(options, &definition.function_id)?;
    fs::create_dir_all(options.homes_folder())?;
    match fs::rename(written, options.homes_folder().join(&definition.function_id)) {
        // It had no private folders.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Makes a layer of what the containers of a function wrote. Returns its name, if they wrote anything.
pub fn take_written(options: &Options, function_id: &str) -> io::Result<Option<String>> {
    let name = new_id("home");
    match fs::rename(options.homes_folder().join(function_id), options.homes_folder().join(&name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(|()| Some(name)),
    }
}

/// Removes what the containers of a function wrote.
pub fn discard_written(options: &Options, function_id: &str) -> io::Result<()> {
    match fs::remove_dir_all(options.homes_folder().join(function_id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
