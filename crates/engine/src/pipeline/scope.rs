//! What an expression can see.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use minijinja::Value;
use minijinja::value::Object;
use serde_json::{Map, Value as Json};

use super::expr::{from_json, print_utc};
use super::redact::placeholder;
use crate::run::{RunError, RunInfo};

/// The values behind the names of an expression, at one moment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scope {
    params: Value,
    steps: Arc<Outputs>,
    event: Value,
    run: Option<Arc<RunInfo>>,
    last: Value,
    now: Option<DateTime<Utc>>,
    error: Value,
    secrets: Value,
}

impl Scope {
    /// A scope with these parameters, the event (`None`: the name has no value) and the previous
    /// run (`None`: the name is none). Without steps, secrets and an error.
    #[must_use]
    pub fn new(
        params: &Map<String, Json>,
        event: Option<&Json>,
        last: Option<&Json>,
        run: Option<&RunInfo>,
    ) -> Self {
        Self {
            params: Value::from(minijinja::value::Serde(params)),
            steps: Arc::default(),
            event: event.map_or(Value::UNDEFINED, from_json),
            run: run.map(|run| Arc::new(run.clone())),
            last: last.map_or(Value::from(()), from_json),
            now: None,
            error: Value::UNDEFINED,
            secrets: Value::UNDEFINED,
        }
    }

    /// Adds the output of a step; every clone of this scope sees it.
    pub(super) fn set_step(&self, names: &[String], output: &Json) {
        let value = from_json(output);
        let mut outputs = self.steps.0.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            outputs.insert(name.clone(), value.clone());
        }
    }

    /// The same scope at `now`.
    #[must_use]
    pub fn at(mut self, now: DateTime<Utc>) -> Self {
        self.now = Some(now);
        self
    }

    /// The same scope with `error`, as the steps of an `on_error` list see it.
    #[must_use]
    pub(super) fn with_error(mut self, error: &RunError) -> Self {
        self.error = from_json(&error_json(error));
        self
    }

    /// The same scope with secrets, or with their names in place of them.
    #[must_use]
    pub(super) fn with_secrets(
        mut self,
        secrets: &Arc<BTreeMap<String, String>>,
        real: bool,
    ) -> Self {
        self.secrets = Value::from_object(SecretValues { secrets: Arc::clone(secrets), real });
        self
    }

    /// What is handed to an evaluation.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::from_object(self.clone())
    }
}

/// `{kind, message, step}`: what `error` and `steps.<id>.error` are.
#[must_use]
pub(super) fn error_json(error: &RunError) -> Json {
    serde_json::json!({"kind": error.kind, "message": error.message, "step": error.step})
}

fn run_value(run: &RunInfo) -> Value {
    from_json(&serde_json::json!({
        "id": run.id,
        "task_id": run.task_id,
        "attempt": run.attempt,
        "trigger": run.trigger,
        "nominal_at": run.nominal_at.map(print_utc),
        "scheduled_at": print_utc(run.scheduled_at),
    }))
}

/// The names of `run.…`.
pub(super) const RUN_FIELDS: &[&str] =
    &["id", "task_id", "attempt", "trigger", "nominal_at", "scheduled_at"];

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let value = match key {
            "params" => &self.params,
            "steps" => return Some(Value::from_dyn_object(Arc::clone(&self.steps))),
            "event" => &self.event,
            "run" => return self.run.as_deref().map(run_value),
            "last" => &self.last,
            "now" => return self.now.map(|now| Value::from(print_utc(now))),
            "error" => &self.error,
            "secrets" => &self.secrets,
            _ => return None,
        };
        // An undefined value from here would hide the environment's own names.
        (!value.is_undefined()).then(|| value.clone())
    }
}

/// The outputs of steps, by id and by `save_as`.
#[derive(Debug, Default)]
struct Outputs(Mutex<HashMap<String, Value>>);

impl Object for Outputs {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> minijinja::value::Enumerator {
        let outputs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = outputs.keys().map(|name| Value::from(name.as_str())).collect();
        names.sort();
        minijinja::value::Enumerator::Values(names)
    }
}

struct SecretValues {
    secrets: Arc<BTreeMap<String, String>>,
    real: bool,
}

// Not derived: the values must not be printed by accident.
impl std::fmt::Debug for SecretValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("secrets")
    }
}

impl Object for SecretValues {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let value = self.secrets.get(key)?;
        Some(if self.real { Value::from(value.as_str()) } else { Value::from(placeholder(key)) })
    }
}
