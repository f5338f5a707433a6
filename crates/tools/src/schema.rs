//! Checking what goes into a tool and what comes out against its JSON Schemas.

use jsonschema::Validator;
use serde_json::Value;

/// The most mistakes named in one error.
const MISTAKES_MAX: usize = 5;

/// A schema made ready for use. References to other documents are not followed: a schema from
/// outside must not make this process fetch anything.
///
/// # Errors
///
/// What is wrong with the schema, in words.
pub(crate) fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options().build(schema).map_err(|error| error.to_string())
}

/// What is wrong with `value`, in one line; `None` when it fits. The values themselves are not
/// named: an input may hold secrets.
pub(crate) fn mistakes(validator: &Validator, value: &Value) -> Option<String> {
    if validator.is_valid(value) {
        return None;
    }
    let said: Vec<String> = validator
        .iter_errors(value)
        .take(MISTAKES_MAX)
        .map(|error| {
            let place = error.instance_path().to_string();
            let what = error.masked().to_string();
            if place.is_empty() { what } else { format!("{place}: {what}") }
        })
        .collect();
    Some(said.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mistake_names_the_place_and_never_the_value() {
        let schema = json!({"properties": {"url": {"type": "integer"}}});

        let said = mistakes(&compile(&schema).unwrap(), &json!({"url": "hunter2"})).unwrap();

        assert!(said.starts_with("/url: "), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }

    #[test]
    fn a_schema_that_refers_to_another_host_is_refused() {
        assert!(compile(&json!({"$ref": "https://example.com/schema.json"})).is_err());
    }
}
