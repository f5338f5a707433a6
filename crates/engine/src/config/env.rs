//! The environment as a map, and the problems found while reading it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::{SETTINGS, Secret};
use crate::problem::nearest;

/// Variables as they were at the start. A value of nothing but blanks counts as unset: compose
/// hands on `${NAME:-}` as an empty text.
#[derive(Clone, Default)]
pub struct Env {
    values: BTreeMap<String, String>,
    /// Which names were read: a test compares them with the table.
    asked: RefCell<BTreeSet<&'static str>>,
}

impl Env {
    /// The environment of this process; the one place that asks for it.
    #[must_use]
    pub fn from_process() -> Self {
        Self::from_pairs(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    /// An environment of these variables and no others.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let values = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .filter(|(_, value)| !value.trim().is_empty())
            .collect();
        Self { values, asked: RefCell::default() }
    }

    /// The same environment with `name` set to `value`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    /// The value of any variable, also one that is no setting of ours (`PATH`, `HOME`).
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.trim())
    }

    /// The value of a setting without its surrounding blanks; `None` when it is unset.
    #[must_use]
    pub fn text(&self, name: &'static str) -> Option<&str> {
        debug_assert!(
            SETTINGS.iter().any(|setting| setting.name == name),
            "{name} is read but has no row in SETTINGS"
        );
        self.asked.borrow_mut().insert(name);
        self.raw(name)
    }

    /// Which settings were asked for so far.
    #[cfg(test)]
    pub(super) fn asked(&self) -> BTreeSet<&'static str> {
        self.asked.borrow().clone()
    }

    /// A whole number in `range`, or `default`.
    pub fn number<T>(
        &self,
        name: &'static str,
        default: T,
        range: RangeInclusive<T>,
        problems: &mut Problems,
    ) -> T
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let Some(text) = self.text(name) else { return default };
        match text.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                problems.add(format!(
                    "{name}: {text:?} is not a whole number from {} to {}",
                    range.start(),
                    range.end()
                ));
                default
            }
        }
    }

    /// Yes or no, or `default`.
    pub fn flag(&self, name: &'static str, default: bool, problems: &mut Problems) -> bool {
        let Some(text) = self.text(name) else { return default };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => {
                problems.add(format!("{name}: {text:?} is not true or false"));
                default
            }
        }
    }

    /// Anything that parses from text, or `default`. `right` completes "is not …".
    pub fn parsed<T: FromStr>(
        &self,
        name: &'static str,
        default: T,
        right: &str,
        problems: &mut Problems,
    ) -> T {
        let Some(text) = self.text(name) else { return default };
        text.parse().unwrap_or_else(|_| {
            problems.add(format!("{name}: {text:?} is not {right}"));
            default
        })
    }

    /// A secret from `name`, or from the file that `name_FILE` names (its content without the
    /// surrounding blanks); `None` when neither is set. Both set is a problem, and so is an empty
    /// or unreadable file.
    pub fn secret(&self, name: &'static str, problems: &mut Problems) -> Option<Secret> {
        let direct = self.text(name).map(str::to_owned);
        self.secret_or_file(name, direct, problems)
    }

    fn secret_or_file(
        &self,
        name: &str,
        direct: Option<String>,
        problems: &mut Problems,
    ) -> Option<Secret> {
        let Some(path) = self.raw(&format!("{name}_FILE")) else {
            return direct.map(Secret::new);
        };
        if direct.is_some() {
            problems.add(format!("{name} and {name}_FILE are both set; keep one"));
            return None;
        }
        match std::fs::read_to_string(path) {
            Ok(content) if content.trim().is_empty() => {
                problems.add(format!("{name}_FILE: the file {path:?} is empty"));
                None
            }
            Ok(content) => Some(Secret::new(content.trim())),
            Err(error) => {
                problems.add(format!("{name}_FILE: the file {path:?} cannot be read: {error}"));
                None
            }
        }
    }

    /// Every `SECRET_<NAME>` and `SECRET_<NAME>_FILE`, by `<NAME>`.
    pub(super) fn pipeline_secrets(&self, problems: &mut Problems) -> BTreeMap<String, Secret> {
        let mut secrets = BTreeMap::new();
        for variable in self.values.keys() {
            let Some(rest) = variable.strip_prefix("SECRET_") else { continue };
            let name = rest.strip_suffix("_FILE").unwrap_or(rest);
            if !is_secret_name(name) {
                problems.add(format!(
                    "{variable}: the name of a secret is capital letters, digits and _, as in SECRET_MAIL_TOKEN"
                ));
                continue;
            }
            if secrets.contains_key(name) {
                continue; // the variable and its _FILE: seen, and told, at the first of them
            }
            let full = format!("SECRET_{name}");
            let direct = self.raw(&full).map(str::to_owned);
            if let Some(secret) = self.secret_or_file(&full, direct, problems) {
                secrets.insert(name.to_owned(), secret);
            }
        }
        secrets
    }

    /// Adds a problem for each `ORCHESTRATOR_*` that we do not know: the prefix is ours alone, so it
    /// can only be a mistake.
    pub fn refuse_unknown(&self, problems: &mut Problems) {
        for name in self.values.keys().filter(|name| name.starts_with("ORCHESTRATOR_")) {
            if is_known(name) || OF_SCRIPTS.contains(&name.as_str()) {
                continue;
            }
            let hint = nearest(name, SETTINGS.iter().map(|setting| setting.name))
                .map_or_else(String::new, |near| format!("; did you mean {near}?"));
            problems.add(format!("{name} is not a setting{hint}"));
        }
    }

    /// Sentences about variables whose names are nearly those of settings. Only a warning: other
    /// programs' variables stand in the same environment.
    pub(super) fn likely_slips(&self) -> Vec<String> {
        self.values
            .keys()
            .filter(|name| !is_known(name) && !name.starts_with("ORCHESTRATOR_"))
            .filter_map(|name| {
                // Two letters in eight or more: PORT or LOG must not be taken for ours.
                let near = SETTINGS.iter().map(|setting| setting.name).find(|setting| {
                    setting.len() >= 8 && strsim::damerau_levenshtein(name, setting) <= 2
                })?;
                Some(format!("{name} is not a setting; did you mean {near}?"))
            })
            .collect()
    }
}

/// What `ops/scripts/lib.sh` reads. It may be exported where a program of ours is started, or stand in the
/// `.env` that Compose hands to every service.
const OF_SCRIPTS: [&str; 3] = ["ORCHESTRATOR_MODE", "ORCHESTRATOR_VERSION", "ORCHESTRATOR_COMPOSE"];

/// Whether `name` is a setting's, or that of its file where it may have one.
fn is_known(name: &str) -> bool {
    SETTINGS.iter().any(|setting| {
        name == setting.name || (setting.secret && name.strip_suffix("_FILE") == Some(setting.name))
    })
}

fn is_secret_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// Everything that is wrong with the settings, one sentence each. `Display` prints a line for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Adds one. It names the variable and what would be right.
    pub fn add(&mut self, sentence: impl Into<String>) {
        self.0.push(sentence.into());
    }

    /// Adds `sentence` unless `holds`.
    pub fn require(&mut self, holds: bool, sentence: impl Into<String>) {
        if !holds {
            self.add(sentence);
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, sentence) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(sentence)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
