//! Points in time as people write them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use serde::{Deserialize, Deserializer, de};

/// A date, with or without a time of day and an offset from UTC.
///
/// # Errors
/// If the text is not a date; the message shows the forms that are accepted.
pub fn parse(text: &str) -> Result<DateTime<Utc>, String> {
    // As it is printed, and as ISO 8601 and RFC 3339 have it.
    let given = text;
    let text = text.trim().trim_end_matches(" UTC").replacen(' ', "T", 1);
    // Seconds may be left out.
    let with_offset =
        || text.parse().or_else(|_| DateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M%#z").map(|at| at.to_utc()));
    let without_offset = || {
        let to_the_minute = || NaiveDateTime::parse_from_str(text.trim_end_matches('Z'), "%Y-%m-%dT%H:%M");
        text.parse::<NaiveDateTime>().or_else(|_| to_the_minute())
    };
    let date_only = || text.parse::<NaiveDate>().map(|date| date.and_time(NaiveTime::MIN));
    with_offset()
        .or_else(|_| without_offset().or_else(|_| date_only()).map(|date| date.and_utc()))
        .map_err(|_| format!("{given:?} is not a date: write 2026-01-31 or 2026-01-31T06:00:00Z"))
}

/// For `deserialize_with`: a point in time as [`parse`] takes it.
///
/// # Errors
/// If it is not text, or not a date.
pub fn required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// The same, where there may be none.
///
/// # Errors
/// If there is a value that is not text, or not a date.
pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse(&text)).transpose().map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_dates_are_parsed_and_invalid_ones_refused() {
        let date = |text| parse(text).map(|date| date.to_rfc3339());
        for (text, expected) in [
            ("2026-01-31", "2026-01-31T00:00:00+00:00"),
            ("2026-01-31T06:30:00", "2026-01-31T06:30:00+00:00"),
            ("2026-01-31 06:30:00", "2026-01-31T06:30:00+00:00"),
            ("2026-01-31 06:30:00 UTC", "2026-01-31T06:30:00+00:00"),
            ("2026-01-31T06:30:00+02:00", "2026-01-31T04:30:00+00:00"),
            ("2026-01-31T06:30", "2026-01-31T06:30:00+00:00"),
            ("2026-01-31 06:30", "2026-01-31T06:30:00+00:00"),
            ("2026-01-31T06:30Z", "2026-01-31T06:30:00+00:00"),
            ("2026-01-31T06:30+02:00", "2026-01-31T04:30:00+00:00"),
        ] {
            assert_eq!(date(text), Ok(expected.to_owned()));
        }
        for text in ["", "yesterday", "2026-02-30", "2026-13-05", "2026-01-31T6", "2026-01-31T06:30:00 Mars"] {
            assert!(date(text).is_err_and(|why| why.contains("2026-01-31T06:00:00Z")), "{text}");
        }
    }
}
