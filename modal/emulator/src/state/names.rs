//! Getting, creating and naming objects: the rules that Dicts, Volumes and Secrets share.

use modal_proto::ObjectCreationType;

use crate::error::Error;

/// The name of the default environment.
pub const DEFAULT_ENVIRONMENT: &str = "main";

/// The environment a request means.
pub fn environment(name: &str) -> &str {
    if name.is_empty() { DEFAULT_ENVIRONMENT } else { name }
}

/// The decision about a `…GetOrCreate` request.
#[derive(Debug, PartialEq, Eq)]
pub enum Creation {
    /// Return this object.
    Existing(String),
    /// Replace the contents of this object.
    Overwrite(String),
    /// Create an object with the requested name.
    Named,
    /// Create an object without a name. If `ephemeral`, it does not outlive this process.
    Anonymous { ephemeral: bool },
}

impl Creation {
    /// Decides for the object `name` of a `kind`; `existing` is its id if it exists.
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
