//! Keeping secrets out of what is stored and shown.

use std::collections::BTreeMap;

use serde_json::Value;

/// Shorter secrets are not looked for: they would hit texts that have nothing to do with them.
pub const REDACTED_MIN: usize = 4;

/// What stands in the place of secret `name`.
#[must_use]
pub fn placeholder(name: &str) -> String {
    format!("[secret {name}]")
}

/// Replaces the values of some secrets by their names.
#[derive(Debug, Default)]
pub struct Redactor {
    /// Value and placeholder, the longest value first: one may be part of another.
    secrets: Vec<(String, String)>,
}

impl Redactor {
    /// A redactor for `secrets`: values by name.
    #[must_use]
    pub fn new(secrets: &BTreeMap<String, String>) -> Self {
        let mut secrets: Vec<_> = secrets
            .iter()
            .filter(|(_, value)| value.len() >= REDACTED_MIN)
            .map(|(name, value)| (value.clone(), placeholder(name)))
            .collect();
        secrets.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        Self { secrets }
    }

    /// Replaces every secret in `text`.
    pub fn text(&self, text: &mut String) {
        for (value, placeholder) in &self.secrets {
            if text.contains(value.as_str()) {
                *text = text.replace(value.as_str(), placeholder);
            }
        }
    }

    /// Replaces every secret in the texts and names of `json`.
    pub fn json(&self, json: &mut Value) {
        if self.secrets.is_empty() {
            return;
        }
        match json {
            Value::String(text) => self.text(text),
            Value::Array(list) => list.iter_mut().for_each(|entry| self.json(entry)),
            Value::Object(map) => {
                let named = |name: &String| {
                    self.secrets.iter().any(|(value, _)| name.contains(value.as_str()))
                };
                if map.keys().any(named) {
                    *map = std::mem::take(map)
                        .into_iter()
                        .map(|(mut name, value)| {
                            self.text(&mut name);
                            (name, value)
                        })
                        .collect();
                }
                map.values_mut().for_each(|entry| self.json(entry));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_replaced_wherever_they_stand_the_longest_first() {
        let secrets = [("SHORT", "abcd"), ("LONG", "abcd-efgh"), ("TINY", "abc")];
        let redactor = Redactor::new(
            &secrets.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect(),
        );
        let mut json = json!({"a": ["x abcd-efgh y", 5], "abcd": {"b": "abc"}});
        redactor.json(&mut json);
        assert_eq!(json, json!({"a": ["x [secret LONG] y", 5], "[secret SHORT]": {"b": "abc"}}));
    }
}
