//! A step's `with`: what is constant is kept as it is, the rest is resolved when the step starts.

use serde_json::{Map, Value as Json};

use super::expr::{EvalError, Text};

/// A value in which some texts are expressions.
#[derive(Debug)]
pub(super) enum Input {
    Constant(Json),
    Text {
        text: Text,
        /// Whether it names a secret.
        secret: bool,
    },
    List(Vec<Input>),
    Map(Vec<(String, Input)>),
}

impl Input {
    pub(super) fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }

    /// The value in `scope`.
    pub(super) fn resolve(&self, scope: &minijinja::Value) -> Result<Json, EvalError> {
        Ok(match self {
            Self::Constant(value) => value.clone(),
            Self::Text { text, .. } => text.value(scope)?,
            Self::List(entries) => {
                entries.iter().map(|entry| entry.resolve(scope)).collect::<Result<_, _>>()?
            }
            Self::Map(entries) => {
                let mut map = Map::new();
                for (name, entry) in entries {
                    map.insert(name.clone(), entry.resolve(scope)?);
                }
                Json::Object(map)
            }
        })
    }

    /// The value to be shown: texts with secrets are evaluated again with the secrets' names in
    /// place of them, in the scope `masked`; all others are taken from `resolved`.
    pub(super) fn masked(&self, resolved: &Json, masked: &minijinja::Value) -> Json {
        match (self, resolved) {
            // What cannot be computed from a name (say, a secret that is parsed as JSON) is hidden
            // as a whole.
            (Self::Text { text, secret: true }, _) => {
                text.value(masked).unwrap_or_else(|_| "[secret]".into())
            }
            (Self::List(entries), Json::Array(values)) => entries
                .iter()
                .zip(values)
                .map(|(entry, value)| entry.masked(value, masked))
                .collect(),
            (Self::Map(entries), Json::Object(values)) => entries
                .iter()
                .filter_map(|(name, entry)| {
                    Some((name.clone(), entry.masked(values.get(name)?, masked)))
                })
                .collect::<Map<_, _>>()
                .into(),
            _ => resolved.clone(),
        }
    }
}
