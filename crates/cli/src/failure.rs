//! Why a verb did not do what it was asked, and the exit code that says so.

use std::fmt;
use std::process::ExitCode;

use orchestrator_boot::BoxError;
use serde_json::Value;

/// Why a verb did not do what it was asked. `Display` is what the person reads.
#[derive(Debug)]
pub enum Failure {
    /// It was asked wrongly, or settings are wrong. Exit code 2.
    Usage(String),
    /// The server refused, with a problem document (RFC 9457). Exit code 1.
    Refused(Problem),
    /// Anything else. Exit code 1.
    Failed(String),
}

impl Failure {
    /// A failure that is no fault of how it was asked.
    pub fn failed(sentence: impl Into<String>) -> Self {
        Self::Failed(sentence.into())
    }

    /// For `map_err`: "could not `doing`: error".
    pub fn while_doing<E: fmt::Display>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |error| Self::Failed(format!("could not {doing}: {error}"))
    }

    /// The code to exit with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Refused(_) | Self::Failed(_) => ExitCode::FAILURE,
        }
    }
}

impl From<BoxError> for Failure {
    fn from(error: BoxError) -> Self {
        Self::Failed(with_causes(&*error))
    }
}

/// An error and what caused it, in one line; causes that were said already are left out.
#[must_use]
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !words.contains(&said) {
            words = format!("{words}: {said}");
        }
        cause = inner.source();
    }
    words
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(sentence) | Self::Failed(sentence) => f.write_str(sentence),
            Self::Refused(problem) => problem.fmt(f),
        }
    }
}

/// A problem document as the server sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Problem {
    /// What kind, in short.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: Option<String>,
    /// Under which id the server's log speaks of it.
    pub request_id: Option<String>,
    /// Each mistake in what was sent.
    pub errors: Vec<Mistake>,
}

/// One mistake in what was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Mistake {
    /// JSON pointer into the body; empty for the whole.
    pub pointer: Option<String>,
    /// The query parameter, where it is one.
    pub parameter: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Mistake {
    /// The mistake with its place as people name it.
    fn told(&self) -> String {
        let place = self.pointer.as_deref().map(place_of).or_else(|| self.parameter.clone());
        match place.as_deref() {
            None | Some("") => self.message.clone(),
            Some(place) => format!("{place}: {}", self.message),
        }
    }
}

impl Problem {
    /// The problem in the body of an answer with `status`; bodies of other servers (a proxy's page)
    /// are not quoted.
    #[must_use]
    pub fn read(status: u16, body: &[u8]) -> Self {
        let known = serde_json::from_slice::<Value>(body)
            .ok()
            .and_then(|body| serde_json::from_value::<Self>(body).ok())
            .filter(|problem| !problem.title.is_empty());
        known.unwrap_or_else(|| Self {
            title: format!("the server answered {status} and did not say why"),
            status,
            ..Self::default()
        })
    }
}

/// A JSON pointer as people name the place, as far as can be told without what was sent:
/// `/scopes/0` → `scopes[0]`.
fn place_of(pointer: &str) -> String {
    pointer.split('/').skip(1).fold(String::new(), |place, token| {
        let name = token.replace("~1", "/").replace("~0", "~");
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("{place}[{name}]")
        } else if place.is_empty() {
            name
        } else {
            format!("{place}.{name}")
        }
    })
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)?;
        match &self.detail {
            // The server says a single mistake in both places.
            Some(detail) if !matches!(&self.errors[..], [one] if detail.ends_with(&one.message)) => {
                write!(f, ": {detail}")?;
            }
            _ => {}
        }
        for mistake in &self.errors {
            write!(f, "\n  {}", mistake.told())?;
        }
        match &self.request_id {
            // Only where a person has to look further: the others say all there is to say.
            Some(id) if self.status >= 500 => write!(f, "\n  (request {id} in the server's log)"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_with_every_mistake_and_its_place() {
        let body = br#"{"type":"/problems/invalid","title":"The task is wrong","status":422,
            "detail":"2 problems","request_id":"r1",
            "errors":[{"pointer":"/timezone","message":"no such zone"},
                      {"pointer":"","message":"no schedule"}]}"#;

        assert_eq!(
            Problem::read(422, body).to_string(),
            "The task is wrong: 2 problems\n  timezone: no such zone\n  no schedule"
        );
    }

    #[test]
    fn a_single_mistake_is_told_once_and_so_is_one_of_a_parameter() {
        let one = br#"{"title":"Not valid","status":422,"detail":"/name: too long",
            "errors":[{"pointer":"/name","message":"too long"}]}"#;
        let parameter = br#"{"title":"Not valid","status":400,"detail":"limit: not a number",
            "errors":[{"parameter":"limit","message":"not a number"}]}"#;

        assert_eq!(Problem::read(422, one).to_string(), "Not valid\n  name: too long");
        assert_eq!(Problem::read(400, parameter).to_string(), "Not valid\n  limit: not a number");
    }

    #[test]
    fn an_answer_that_is_no_problem_document_is_not_quoted() {
        let problem = Problem::read(502, b"<html>Bad Gateway</html>");

        assert_eq!(problem.to_string(), "the server answered 502 and did not say why");
    }
}
