//! What is wrong with something a caller sent, and where.

use std::fmt;

/// One mistake in a document, with the place of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// RFC 6901 JSON pointer into what was sent: `/payload/pipeline/0/uses`; empty for the whole.
    pub pointer: String,
    /// What is wrong and what would be right, in one sentence, without secrets.
    pub message: String,
}

impl Problem {
    /// A problem at `pointer`.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }

    /// The same problem seen from a document in which this one stands at `prefix`.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.pointer, self.message)
        }
    }
}

/// `name` as one token of a JSON pointer (RFC 6901 §3: `~` and `/` are escaped).
#[must_use]
pub fn pointer_token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The entry of `known` that a person who wrote `given` most likely meant; `None` when nothing is
/// near (Damerau-Levenshtein, at most a third of the letters).
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = given.to_lowercase();
    let limit = (given.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&wanted, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_a_stranger_is_not() {
        let zones = ["Europe/Berlin", "Europe/Chisinau", "UTC"];

        assert_eq!(nearest("europe/berln", zones), Some("Europe/Berlin"));
        assert_eq!(nearest("Mars/Olympus", zones), None);
    }
}
