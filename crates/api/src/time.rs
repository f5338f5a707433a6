//! Times that come from outside.
//!
//! chrono reads years that Postgres does not keep, and panics beyond the last of its own. So a time
//! that somebody sends passes here, whether it stands in a query or in a body; those of a task's
//! schedule are bounded the same by `engine`.

use chrono::{DateTime, Datelike as _, Utc};
use orchestrator_engine::clock::YEARS;
use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer};

/// Reads a time as RFC 3339 writes it.
///
/// # Errors
///
/// What it must be.
pub fn read(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let time =
        text.parse().map_err(|_| "must be a time such as 2026-12-24T08:00:00Z (RFC 3339)")?;
    bounded(time)
}

/// The time, if it is one that can be worked with.
///
/// # Errors
///
/// What it must be.
pub fn bounded(time: DateTime<Utc>) -> Result<DateTime<Utc>, &'static str> {
    if YEARS.contains(&time.year()) { Ok(time) } else { Err("must be in the years 1 to 9999") }
}

/// For `deserialize_with`: a time in a body.
pub(crate) fn required<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
    bounded(DateTime::deserialize(from)?).map_err(D::Error::custom)
}

/// For `deserialize_with`: a time in a body that may be null.
pub(crate) fn optional<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<DateTime<Utc>>, D::Error> {
    let time = Option::deserialize(from)?;
    time.map(bounded).transpose().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_years_end_where_they_do_in_utc() {
        for fine in ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-12-24T08:00:00+01:00"] {
            assert!(read(fine).is_ok(), "{fine}");
        }
        for wrong in ["0000-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00", "+10000-01-01T00:00:00Z"]
        {
            assert_eq!(read(wrong), Err("must be in the years 1 to 9999"), "{wrong}");
        }
        assert!(read("tomorrow").unwrap_err().contains("RFC 3339"));
    }
}
