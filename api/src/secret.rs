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

/// How serde begins to repeat a value of the input. It ends with the same quotation mark, before what was expected.
const REPEATED: [&str; 6] =
    ["string \"", "boolean `", "integer `", "floating point `", "character `", "unknown variant `"];

/// Takes out of a message of serde's what it repeats of the input: `invalid type: string "x", expected a map` becomes
/// `invalid type: string, expected a map`. What stands in a wrong place may be a secret that was meant for another.
pub fn without_values(message: &str) -> Cow<'_, str> {
    let first = REPEATED.iter().filter_map(|words| Some((message.find(words)? + words.len(), words))).min();
    let Some((start, words)) = first else { return Cow::Borrowed(message) };
    let (what, quote) = words.split_at(words.len() - 1);
    // The last one: the value may hold the same words, what was expected does not.
    let Some(end) = message.rfind(&format!("{quote}, expected ")) else { return Cow::Borrowed(message) };
    let before = &message[..start - words.len()];
    Cow::Owned(format!("{before}{}{}", what.trim_end(), &message[end + 1..]))
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
    fn credentials_in_urls_are_redacted() {
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

    #[test]
    fn deserialization_errors_do_not_repeat_values() {
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Word {
            Other,
        }
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "only read")]
        struct Read {
            #[serde(default)]
            number: u8,
            #[serde(default)]
            letter: char,
            word: Option<Word>,
            map: Option<std::collections::HashMap<String, String>>,
        }
        let tricky =
            [r#"hunter2"#, r#"hunter2\", expected hunter2"#, "hunter2`, expected hunter2", r#"string \"hunter2"#];
        for value in
            tricky.map(|text| format!("\"{text}\"")).into_iter().chain(["271828", "-2.71828", "2e71"].map(Into::into))
        {
            for field in ["number", "letter", "word", "map"] {
                let json = format!("{{\"{field}\": {value}}}");
                let message = serde_json::from_str::<Read>(&json).expect_err("a wrong type").to_string();
                let shown = without_values(&message);
                assert!(!shown.contains("hunter2") && !shown.contains("71"), "{json}: {message}: {shown}");
                assert!(shown.contains("expected"), "{shown}");
            }
        }
        assert_eq!(without_values("unknown field `x`, expected `y`"), "unknown field `x`, expected `y`");
    }
}
