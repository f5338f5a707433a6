//! Checks a step's `with` against the tool's input schema, as far as it is constant.

use std::fmt::Write as _;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value};

use super::expr;
use crate::problem::{Problem, nearest, pointer_token};

/// How much of a validator's sentence is shown, in characters: it repeats the value.
const MESSAGE_MAX: usize = 300;

/// What is wrong with `with` (at `pointer`), whatever its expressions give. A schema that cannot be
/// read finds nothing: the call itself is validated once more.
pub(super) fn problems(schema: &Value, with: &Map<String, Value>, pointer: &str) -> Vec<Problem> {
    let Ok(validator) = jsonschema::options().offline().build(schema) else {
        tracing::warn!(pointer, "a tool's input schema cannot be read");
        return Vec::new();
    };
    let with = Value::Object(with.clone());
    let mut dynamic = Vec::new();
    find_dynamic(&with, &mut String::new(), &mut dynamic);
    validator
        .iter_errors(&with)
        .filter(|error| is_certain(error, &dynamic))
        .flat_map(|error| describe(&error, schema, pointer))
        .collect()
}

/// Collects the pointers of all texts with expressions.
fn find_dynamic(value: &Value, at: &mut String, found: &mut Vec<String>) {
    let length = at.len();
    match value {
        Value::String(text) if !expr::is_plain(text) => found.push(at.clone()),
        Value::Array(list) => {
            for (n, entry) in list.iter().enumerate() {
                let _ = write!(at, "/{n}");
                find_dynamic(entry, at, found);
                at.truncate(length);
            }
        }
        Value::Object(map) => {
            for (name, entry) in map {
                let _ = write!(at, "/{}", pointer_token(name));
                find_dynamic(entry, at, found);
                at.truncate(length);
            }
        }
        _ => {}
    }
}

/// Whether `error` stays, whatever the values at the pointers `dynamic` will be.
fn is_certain(error: &ValidationError, dynamic: &[String]) -> bool {
    let at = error.instance_path().as_str();
    let within = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if dynamic.iter().any(|pointer| within(pointer, at)) {
        return false;
    }
    if !dynamic.iter().any(|pointer| within(at, pointer)) {
        return true;
    }
    // An object or list with an expression somewhere in it: what does not depend on values stays.
    let conditional = ["/then", "/else", "/dependentSchemas", "/anyOf", "/oneOf", "/not"];
    let path = error.schema_path().as_str();
    !conditional.iter().any(|keyword| path.contains(keyword))
        && matches!(
            error.kind(),
            ValidationErrorKind::Required { .. }
                | ValidationErrorKind::AdditionalProperties { .. }
                | ValidationErrorKind::AdditionalItems { .. }
                | ValidationErrorKind::PropertyNames { .. }
                | ValidationErrorKind::Type { .. }
                | ValidationErrorKind::MinItems { .. }
                | ValidationErrorKind::MaxItems { .. }
                | ValidationErrorKind::MinProperties { .. }
                | ValidationErrorKind::MaxProperties { .. }
        )
}

fn describe(error: &ValidationError, schema: &Value, pointer: &str) -> Vec<Problem> {
    let at = format!("{pointer}{}", error.instance_path().as_str());
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|name| {
                let known = schema
                    .get("properties")
                    .and_then(Value::as_object)
                    .filter(|_| error.instance_path().as_str().is_empty())
                    .into_iter()
                    .flat_map(|properties| properties.keys().map(String::as_str));
                let hint = nearest(name, known)
                    .map_or_else(String::new, |near| format!(". Did you mean {near:?}?"));
                Problem::new(
                    format!("{at}/{}", pointer_token(name)),
                    format!("the tool does not know {name:?}{hint}"),
                )
            })
            .collect(),
        ValidationErrorKind::Required { property } => {
            vec![Problem::new(at, format!("the tool needs {property}"))]
        }
        _ => {
            let mut message = error.to_string();
            if let Some((end, _)) = message.char_indices().nth(MESSAGE_MAX) {
                message.truncate(end);
                message.push('…');
            }
            vec![Problem::new(at, message)]
        }
    }
}
