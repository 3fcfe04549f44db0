//! Getting, creating and naming objects: the rules that Dicts, Volumes and Secrets share.

use modal_proto::ObjectCreationType;

use crate::error::Error;

/// The environment that stands for "none was named".
pub const DEFAULT_ENVIRONMENT: &str = "main";

/// The environment a request means.
pub fn environment(name: &str) -> &str {
    if name.is_empty() { DEFAULT_ENVIRONMENT } else { name }
}

/// What a `…GetOrCreate` request comes down to.
#[derive(Debug, PartialEq, Eq)]
pub enum Creation {
    /// Answer with this object.
    Existing(String),
    /// Replace the contents of this object.
    Overwrite(String),
    /// Make an object with the requested name.
    Named,
    /// Make an object that only its id leads to, and that does not outlive this process if `ephemeral`.
    Anonymous { ephemeral: bool },
}

impl Creation {
    /// Decides for the object `name` of a `kind`; `existing` is the id it has if it is there.
    pub fn decide(kind: &'static str, name: &str, creation_type: i32, existing: Option<String>) -> Result<Self, Error> {
        let wanted = ObjectCreationType::try_from(creation_type)
            .map_err(|_| Error::invalid("object_creation_type", format!("{creation_type} is unknown")))?;
        match (wanted, existing) {
            (ObjectCreationType::AnonymousOwnedByApp, _) => Ok(Self::Anonymous { ephemeral: false }),
            (ObjectCreationType::Ephemeral, _) => Ok(Self::Anonymous { ephemeral: true }),
            _ if name.is_empty() => Err(Error::invalid("deployment_name", "it is empty")),
            (ObjectCreationType::Unspecified, None) => Err(Error::not_found(kind, name)),
            (ObjectCreationType::CreateFailIfExists, Some(_)) => {
                Err(Error::AlreadyExists { kind, id: name.to_owned() })
            }
            (ObjectCreationType::CreateOverwriteIfExists, Some(id)) => Ok(Self::Overwrite(id)),
            (_, Some(id)) => Ok(Self::Existing(id)),
            (_, None) => Ok(Self::Named),
        }
    }
}
