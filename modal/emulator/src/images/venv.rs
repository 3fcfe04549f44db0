//! The virtual environment of an image: it uses the packages of the server's interpreter, and has only those that are
//! missing there.
//!
//! uv looks at one folder of packages. So the metadata of the interpreter's packages is copied into it for the
//! installation: uv then installs packages that are missing or have another version, and nothing else. Afterwards the
//! copies are removed, and a line in a `.pth` file adds the interpreter's own packages.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::interpreter::{Distribution, Interpreter, distributions_in};

/// The `INSTALLER` of a package whose metadata is only a copy.
const COPIED: &str = "modal-local";
/// The file that adds the interpreter's own packages. Its name sorts after those of others.
const LINK: &str = "~modal_local.pth";

/// A virtual environment.
#[derive(Debug, Clone)]
pub struct Venv {
    pub folder: PathBuf,
    series: String,
}

impl Venv {
    pub fn new(folder: PathBuf, interpreter: &Interpreter) -> Self {
        Self { folder, series: interpreter.series().to_owned() }
    }

    pub fn python(&self) -> PathBuf {
        self.folder.join("bin").join("python")
    }

    fn site(&self) -> PathBuf {
        self.folder.join("lib").join(format!("python{}", self.series)).join("site-packages")
    }

    /// Makes the packages of an interpreter visible in the environment.
    pub fn link_packages(&self, base: &Interpreter) -> io::Result<()> {
        let site = self.site();
        for found in base.distributions() {
            copy_description(&found, &site)?;
        }
        let add = |site: &PathBuf| format!("site.addsitedir({:?})", site.to_string_lossy());
        let lines = base.sites.iter().map(add).collect::<Vec<_>>().join("; ");
        fs::write(site.join(LINK), format!("import site; {lines}\n"))
    }

    /// Removes the copied metadata. Returns whether something was installed.
    pub fn remove_copies(&self) -> io::Result<bool> {
        let mut installed = false;
        for found in distributions_in(&self.site()) {
            if is_copy(&found) {
                fs::remove_dir_all(&found.folder)?;
            } else {
                installed = true;
            }
        }
        Ok(installed)
    }

    /// Whether the environment has its own package of this name.
    pub fn has_own(&self, name: &str) -> bool {
        distributions_in(&self.site()).iter().any(|found| found.name == name && !is_copy(found))
    }
}

fn is_copy(found: &Distribution) -> bool {
    fs::read_to_string(found.folder.join("INSTALLER")).is_ok_and(|installer| installer == COPIED)
}

/// Copies the metadata that uv reads. The list of files has only that, so that removing the package removes nothing
/// else.
fn copy_description(found: &Distribution, site: &Path) -> io::Result<()> {
    let Some(name) = found.folder.file_name() else { return Ok(()) };
    let target = site.join(name);
    fs::create_dir_all(&target)?;
    let mut record = String::new();
    let list = |record: &mut String, file: &str| {
        record.push_str(&format!("{}/{file},,\n", name.to_string_lossy()));
    };
    for file in ["METADATA", "WHEEL", "entry_points.txt", "direct_url.json"] {
        match fs::copy(found.folder.join(file), target.join(file)) {
            Ok(_) => list(&mut record, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    fs::write(target.join("INSTALLER"), COPIED)?;
    list(&mut record, "INSTALLER");
    list(&mut record, "RECORD");
    fs::write(target.join("RECORD"), record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_metadata_copies_are_added_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("base");
        fs::create_dir_all(base.join("A_b-1.0.dist-info")).unwrap();
        fs::write(base.join("A_b-1.0.dist-info/METADATA"), "Name: A_b").unwrap();
        let interpreter = Interpreter { python: PathBuf::new(), version: "3.11.7".into(), sites: vec![base.clone()] };
        let venv = Venv::new(folder.path().join("venv"), &interpreter);
        fs::create_dir_all(venv.site()).unwrap();
        venv.link_packages(&interpreter).unwrap();
        assert!(fs::read_to_string(venv.site().join(LINK)).unwrap().contains(&*base.to_string_lossy()));
        assert!(venv.site().join("A_b-1.0.dist-info/METADATA").is_file() && !venv.has_own("a-b"));
        fs::create_dir(venv.site().join("c-2.dist-info")).unwrap();
        assert!(venv.has_own("c"));
        assert!(venv.remove_copies().unwrap());
        assert!(!venv.site().join("A_b-1.0.dist-info").exists() && venv.site().join("c-2.dist-info").exists());
        fs::remove_dir(venv.site().join("c-2.dist-info")).unwrap();
        assert!(!venv.remove_copies().unwrap());
    }
}
