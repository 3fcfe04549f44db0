//! Text that must not reach logs, answers or error messages.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A secret text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(format = "password")]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; call it only where the secret leaves for its destination.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Hides whatever could be the credentials of a URL: what stands between the first `://` and the last `@`.
///
/// For messages of parsers, which repeat what they cannot read: a connection string may stand in any wrong place.
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    const SCHEME_END: &str = "://";
    match (text.find(SCHEME_END), text.rfind('@')) {
        (Some(start), Some(end)) if start + SCHEME_END.len() < end => {
            Cow::Owned(format!("{}…{}", &text[..start + SCHEME_END.len()], &text[end..]))
        }
        _ => Cow::Borrowed(text),
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden_wherever_they_stand() {
        let cases = [
            (
                "unknown variant `postgresql://u:p@w`rd@h/d`, expected x",
                "unknown variant `postgresql://…@h/d`, expected x",
            ),
            ("a postgresql://u:p@h/d b postgres://u:p@i/d", "a postgresql://…@i/d"),
            ("see https://example.org", "see https://example.org"),
            ("a@b ://c", "a@b ://c"),
            ("`often`", "`often`"),
        ];
        for (text, hidden) in cases {
            assert_eq!(without_credentials(text), hidden);
        }
    }
}
