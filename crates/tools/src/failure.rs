//! How tools say that they failed: short ways to make a [`ToolError`], and the reading of what the
//! other side says about itself (`Retry-After`, a piece of its answer).

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use orchestrator_engine::tool::{ERROR_TEXT_MAX, ToolError};

/// The longest time that a `Retry-After` is believed.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// Trying again would fail the same way.
pub fn refused(tool: &str, reason: impl Into<String>) -> ToolError {
    ToolError::Refused { tool: tool.to_owned(), reason: reason.into() }
}

/// It cannot now; another try may succeed.
pub fn busy(tool: &str, reason: impl Into<String>) -> ToolError {
    ToolError::Busy { tool: tool.to_owned(), reason: reason.into(), retry_after: None }
}

/// It was not reached at all, so nothing was done there.
pub fn unreachable(tool: &str, reason: impl Into<String>) -> ToolError {
    ToolError::Unreachable { tool: tool.to_owned(), reason: reason.into() }
}

/// What an HTTP status that was not wanted means for another try (RFC 9110 §15, RFC 6585 §4,
/// RFC 8470 §5.2): 408, 425, 429 and 5xx may pass; any other will not.
#[must_use]
pub fn status(
    tool: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: DateTime<Utc>,
) -> ToolError {
    let mut reason = format!("status {status}");
    let said = excerpt(body, ERROR_TEXT_MAX);
    if !said.is_empty() {
        reason.push_str(": ");
        reason.push_str(&said);
    }
    if matches!(status.as_u16(), 408 | 425 | 429 | 500..=599) {
        let retry_after = retry_after(headers, now);
        ToolError::Busy { tool: tool.to_owned(), reason, retry_after }
    } else {
        refused(tool, reason)
    }
}

/// How long the other side asks to be left alone (RFC 9110 §10.2.3: seconds or a date), at most
/// [`RETRY_AFTER_MAX`]. `None` when it does not say, or not in a form that can be read.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let at = DateTime::parse_from_rfc2822(text).ok()?;
        (at.with_timezone(&Utc) - now).to_std().unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The first `max` bytes of what came back, as one line of text for a person.
#[must_use]
pub fn excerpt(body: &[u8], max: usize) -> String {
    let piece = String::from_utf8_lossy(&body[..body.len().min(max)]);
    let mut line = String::with_capacity(piece.len());
    for word in piece.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    // Bytes that were not text have become three bytes each.
    line.truncate(line.floor_char_boundary(max));
    line
}

/// An error and its causes in one line; what a cause repeats is said once.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text.truncate(text.floor_char_boundary(ERROR_TEXT_MAX));
    text
}

/// Looks for a cause of type `E` in an error.
#[must_use]
pub fn cause<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        retry_after(&headers, "2026-03-01T08:00:00Z".parse().unwrap())
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let cases = [
            ("120", Some(120), "seconds"),
            ("Sun, 01 Mar 2026 08:01:30 GMT", Some(90), "a date"),
            ("Sun, 01 Mar 2026 07:00:00 GMT", Some(0), "a date that is past: now"),
            ("99999999", Some(86_400), "more than a day is not believed"),
            ("soon", None, "neither"),
            ("-5", None, "not a number of seconds"),
        ];
        for (text, seconds, why) in cases {
            assert_eq!(asked(text), seconds.map(Duration::from_secs), "{why}");
        }
    }

    #[test]
    fn an_excerpt_is_one_line_within_its_limit() {
        assert_eq!(excerpt(b"  not\r\n\tfound \0 here", 100), "not found here");
        assert_eq!(excerpt("äää".as_bytes(), 4), "ää");
        assert!(excerpt(&[0xff; 5_000], ERROR_TEXT_MAX).len() <= ERROR_TEXT_MAX);
    }

    #[test]
    fn a_status_says_whether_to_try_again() {
        let now = "2026-03-01T08:00:00Z".parse().unwrap();
        for (code, transient) in
            [(400, false), (404, false), (408, true), (425, true), (429, true), (503, true)]
        {
            let code = StatusCode::from_u16(code).unwrap();
            let error = status("http.request", code, &HeaderMap::new(), b"no", now);
            assert_eq!(error.is_transient(), transient, "{code}");
        }
    }
}
