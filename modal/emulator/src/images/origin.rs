//! The base of an image.

/// The system that an image begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Python, with its version if it is given.
    Python(Option<String>),
    /// Another system, for which the server's interpreter is used.
    Foreign {
        name: String,
        /// The version of Python that the recipe adds to it.
        python: Option<String>,
    },
}

/// The origin of an image of a registry. Images of Python are recognized by their names.
pub fn origin(reference: &str) -> Origin {
    let (name, tag) = match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, ""),
    };
    let version = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let version = text[..end].trim_end_matches('.');
        (!version.is_empty()).then(|| version.to_owned())
    };
    let place = name.strip_prefix("docker.io/").unwrap_or(name);
    match place {
        "python" => Origin::Python(version(tag)),
        place if place.ends_with("library/python") => Origin::Python(version(tag)),
        place if place.ends_with("astral-sh/uv") && tag.starts_with("python") => {
            Origin::Python(version(tag.trim_start_matches("python")))
        }
        _ => Origin::Foreign { name: reference.to_owned(), python: None },
    }
}

/// The version in a name such as `python-build-standalone.20230826.3.11-gnu`.
pub fn standalone_version(mount: &str) -> String {
    let rest = mount.splitn(3, '.').nth(2).unwrap_or_default();
    rest.split('-').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_version_is_read_from_the_image_name() {
        let python = |version: &str| Origin::Python(Some(version.to_owned()));
        assert_eq!(origin("python:3.11.12-slim-bookworm"), python("3.11.12"));
        assert_eq!(origin("docker.io/library/python:3.12"), python("3.12"));
        assert_eq!(origin("ghcr.io/astral-sh/uv:python3.13-bookworm-slim"), python("3.13"));
        assert_eq!(origin("python:slim"), Origin::Python(None));
        assert_eq!(origin("python"), Origin::Python(None));
        for name in ["ubuntu:22.04", "localhost:5000/python:3.11", "pypy:3.11", "ghcr.io/astral-sh/uv:latest"] {
            assert_eq!(origin(name), Origin::Foreign { name: name.to_owned(), python: None });
        }
        assert_eq!(standalone_version("python-build-standalone.20230826.3.11-gnu"), "3.11");
    }
}
