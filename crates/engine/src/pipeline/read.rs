//! Reads the wire form of a pipeline, with every mistake found and placed.
//!
//! By hand and not by serde: serde stops at the first mistake and does not know JSON pointers.

use serde_json::{Map, Value};

use super::model::{
    Action, ID_MAX, NESTING_MAX, OnError, PARAMS_MAX, Payload, Retrying, STEPS_MAX, StepSpec,
    WITH_DEPTH_MAX,
};
use crate::problem::{Problem, nearest, pointer_token};
use crate::task::{Backoff, RETRIES_MAX, TIMEOUT_MAX_SECONDS};

/// The names of control steps, which will stand in place of `uses`.
const CONTROL: &[&str] = &["foreach", "parallel", "switch", "wait", "run_task"];
const STEP_FIELDS: &[&str] =
    &["id", "uses", "with", "save_as", "if", "timeout_seconds", "retry", "on_error"];

impl Payload {
    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with its form, at pointers relative to the payload. Expressions and
    /// tools are not looked at.
    pub fn read(payload: &Value) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader { problems: Vec::new(), steps: 0, handlers: 0 };
        let payload = reader.payload(payload);
        if reader.problems.is_empty() { Ok(payload) } else { Err(reader.problems) }
    }
}

struct Reader {
    problems: Vec<Problem>,
    steps: usize,
    /// Steps of `on_error` lists without a name so far.
    handlers: usize,
}

impl Reader {
    fn problem(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(pointer, message));
    }

    fn unknown_fields(&mut self, object: &Map<String, Value>, pointer: &str, known: &[&str]) {
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            let hint = nearest(name, known.iter().copied()).map_or_else(
                || format!("Fields are {}.", known.join(", ")),
                |near| format!("Did you mean {near:?}?"),
            );
            self.problem(
                format!("{pointer}/{}", pointer_token(name)),
                format!("unknown field {name:?}. {hint}"),
            );
        }
    }

    fn payload(&mut self, payload: &Value) -> Payload {
        let Value::Object(object) = payload else {
            self.problem("", "must be an object with `pipeline` and, if wanted, `params`");
            return Payload::default();
        };
        self.unknown_fields(object, "", &["params", "pipeline"]);
        let params = match object.get("params") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(params)) => params.clone(),
            Some(_) => {
                self.problem("/params", "must be an object: names and their defaults");
                Map::new()
            }
        };
        if params.len() > PARAMS_MAX {
            self.problem("/params", format!("must have at most {PARAMS_MAX} entries"));
        }
        let steps = match object.get("pipeline") {
            Some(steps @ Value::Array(list)) if !list.is_empty() => {
                self.steps(steps, "/pipeline", 1)
            }
            Some(Value::Array(_)) => {
                self.problem("/pipeline", "must have at least one step");
                Vec::new()
            }
            Some(_) => {
                self.problem("/pipeline", "must be a list of steps");
                Vec::new()
            }
            None => {
                self.problem("/pipeline", "is missing: a list of steps");
                Vec::new()
            }
        };
        if self.steps > STEPS_MAX {
            self.problem(
                "/pipeline",
                format!("must have at most {STEPS_MAX} steps, those of on_error included"),
            );
        }
        self.unique_names(&steps);
        Payload { params, steps }
    }

    fn steps(&mut self, steps: &Value, pointer: &str, depth: usize) -> Vec<StepSpec> {
        let Value::Array(list) = steps else { return Vec::new() };
        if depth > NESTING_MAX {
            self.problem(pointer, format!("steps are nested deeper than {NESTING_MAX}"));
            return Vec::new();
        }
        // Above the limit the problems of each further step would only bury the one that counts.
        self.steps += list.len();
        if self.steps > STEPS_MAX {
            return Vec::new();
        }
        let read = |(n, step)| self.step(step, &format!("{pointer}/{n}"), n, depth);
        list.iter().enumerate().filter_map(read).collect()
    }

    fn step(&mut self, step: &Value, pointer: &str, n: usize, depth: usize) -> Option<StepSpec> {
        let Value::Object(object) = step else {
            self.problem(pointer, "must be a step: an object with `uses` and `with`");
            return None;
        };
        if let Some(control) = CONTROL.iter().find(|name| object.contains_key(**name)) {
            self.problem(
                format!("{pointer}/{control}"),
                format!("{control} steps are not available yet"),
            );
            return None;
        }
        self.unknown_fields(object, pointer, STEP_FIELDS);
        let save_as = self.name(object, pointer, "save_as", false);
        let id = self
            .name(object, pointer, "id", true)
            .or_else(|| save_as.clone())
            .unwrap_or_else(|| self.default_id(n, depth));
        Some(StepSpec {
            pointer: pointer.to_owned(),
            id,
            save_as,
            action: self.call(object, pointer)?,
            condition: object.get("if").filter(|value| !value.is_null()).cloned(),
            timeout_seconds: self.timeout(object, pointer),
            retry: self.retry(object, pointer),
            on_error: self.on_error(object, pointer, depth),
        })
    }

    fn default_id(&mut self, n: usize, depth: usize) -> String {
        if depth == 1 {
            return format!("step_{}", n + 1);
        }
        self.handlers += 1;
        format!("on_error_{}", self.handlers)
    }

    fn name(
        &mut self,
        object: &Map<String, Value>,
        pointer: &str,
        field: &str,
        dash: bool,
    ) -> Option<String> {
        let value = object.get(field).filter(|value| !value.is_null())?;
        let fits = |name: &&str| {
            name.len() <= ID_MAX
                && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || (dash && c == '-'))
        };
        let name = value.as_str().filter(fits);
        if name.is_none() {
            let dashes = if dash { ", '_' and '-'" } else { " and '_'" };
            self.problem(
                format!("{pointer}/{field}"),
                format!(
                    "must be a text of at most {ID_MAX} letters, digits{dashes} that begins with a \
                     letter or '_'"
                ),
            );
        }
        name.map(str::to_owned)
    }

    fn call(&mut self, object: &Map<String, Value>, pointer: &str) -> Option<Action> {
        let with = match object.get("with") {
            None | Some(Value::Null) => Map::new(),
            Some(value @ Value::Object(with)) => {
                if depth_of(value, WITH_DEPTH_MAX).is_none() {
                    let message = format!("is nested deeper than {WITH_DEPTH_MAX}");
                    self.problem(format!("{pointer}/with"), message);
                }
                with.clone()
            }
            Some(_) => {
                self.problem(format!("{pointer}/with"), "must be an object: the tool's input");
                Map::new()
            }
        };
        match object.get("uses") {
            Some(Value::String(uses)) => Some(Action::Call { uses: uses.clone(), with }),
            Some(_) => {
                self.problem(format!("{pointer}/uses"), "must be the address of a tool");
                None
            }
            None => {
                self.problem(
                    format!("{pointer}/uses"),
                    "is missing: the address of a tool, such as http.request",
                );
                None
            }
        }
    }

    fn timeout(&mut self, object: &Map<String, Value>, pointer: &str) -> Option<u32> {
        let value = object.get("timeout_seconds").filter(|value| !value.is_null())?;
        let seconds = value
            .as_u64()
            .and_then(|seconds| u32::try_from(seconds).ok())
            .filter(|seconds| (1..=TIMEOUT_MAX_SECONDS).contains(seconds));
        if seconds.is_none() {
            self.problem(
                format!("{pointer}/timeout_seconds"),
                format!("must be 1 to {TIMEOUT_MAX_SECONDS} seconds"),
            );
        }
        seconds
    }

    fn retry(&mut self, object: &Map<String, Value>, pointer: &str) -> Option<Retrying> {
        let pointer = format!("{pointer}/retry");
        let retry = match object.get("retry")? {
            Value::Null => return None,
            Value::Object(retry) => retry,
            _ => {
                self.problem(pointer, "must be an object: {\"max_attempts\": 3}");
                return None;
            }
        };
        self.unknown_fields(retry, &pointer, &["max_attempts", "backoff"]);
        let most = RETRIES_MAX.unsigned_abs() + 1;
        let max_attempts = retry
            .get("max_attempts")
            .and_then(Value::as_u64)
            .and_then(|attempts| u16::try_from(attempts).ok())
            .filter(|attempts| (1..=most).contains(attempts));
        if max_attempts.is_none() {
            self.problem(format!("{pointer}/max_attempts"), format!("must be 1 to {most}"));
        }
        let backoff = match retry.get("backoff") {
            None | Some(Value::Null) => Some(Backoff::ExponentialJitter),
            Some(word) => word.as_str().and_then(|word| word.parse().ok()),
        };
        if backoff.is_none() {
            let words: Vec<_> = Backoff::ALL.iter().map(|word| word.as_str()).collect();
            self.problem(format!("{pointer}/backoff"), format!("must be {}", words.join(", ")));
        }
        Some(Retrying { max_attempts: max_attempts?, backoff: backoff? })
    }

    fn on_error(&mut self, object: &Map<String, Value>, pointer: &str, depth: usize) -> OnError {
        let pointer = format!("{pointer}/on_error");
        match object.get("on_error") {
            None | Some(Value::Null) => OnError::Fail,
            Some(Value::String(word)) if word == "fail" => OnError::Fail,
            Some(Value::String(word)) if word == "continue" => OnError::Continue,
            Some(steps @ Value::Array(list)) if !list.is_empty() => {
                OnError::Steps(self.steps(steps, &pointer, depth + 1))
            }
            Some(_) => {
                self.problem(pointer, "must be \"fail\", \"continue\" or a list of steps");
                OnError::Fail
            }
        }
    }

    /// Ids and names of outputs must differ, or records and `steps.…` would be mixed up.
    fn unique_names(&mut self, steps: &[StepSpec]) {
        let mut seen = std::collections::HashMap::new();
        let mut found = Vec::new();
        StepSpec::walk(steps, &mut |step| {
            let save_as = step.save_as.as_ref().filter(|name| **name != step.id);
            for (field, name) in [("id", Some(&step.id)), ("save_as", save_as)] {
                let Some(name) = name else { continue };
                if let Some(other) = seen.insert(name, &step.pointer) {
                    found.push(Problem::new(
                        format!("{}/{field}", step.pointer),
                        format!("the name {name:?} is taken by the step at {other}"),
                    ));
                }
            }
        });
        self.problems.append(&mut found);
    }
}

/// How deep `value` is nested; `None` when deeper than `most`.
fn depth_of(value: &Value, most: usize) -> Option<usize> {
    let inner: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(list) => Box::new(list.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => return Some(0),
    };
    let left = most.checked_sub(1)?;
    let mut deepest = 0;
    for value in inner {
        deepest = deepest.max(depth_of(value, left)?);
    }
    Some(deepest + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(payload: &Value) -> Vec<String> {
        Payload::read(payload).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_mistake_is_found_at_once_and_placed() {
        let found = problems(&json!({
            "parms": {},
            "pipeline": [
                {"use": "core.echo"},
                {"uses": "core.echo", "id": "9x", "save_as": "a-b", "timeout_seconds": 0},
                {"uses": "core.echo", "retry": {"max_attempts": 0, "backoff": "slow"}},
                {"uses": "core.echo", "on_error": "ignore", "with": []},
                {"foreach": "${params.x}", "steps": []},
                "echo",
            ],
        }));
        insta::assert_snapshot!(found.join("\n"), @r#"
        /parms: unknown field "parms". Did you mean "params"?
        /pipeline/0/use: unknown field "use". Did you mean "uses"?
        /pipeline/0/uses: is missing: the address of a tool, such as http.request
        /pipeline/1/save_as: must be a text of at most 64 letters, digits and '_' that begins with a letter or '_'
        /pipeline/1/id: must be a text of at most 64 letters, digits, '_' and '-' that begins with a letter or '_'
        /pipeline/1/timeout_seconds: must be 1 to 604800 seconds
        /pipeline/2/retry/max_attempts: must be 1 to 101
        /pipeline/2/retry/backoff: must be exponential_jitter, exponential, linear, fixed
        /pipeline/3/with: must be an object: the tool's input
        /pipeline/3/on_error: must be "fail", "continue" or a list of steps
        /pipeline/4/foreach: foreach steps are not available yet
        /pipeline/5: must be a step: an object with `uses` and `with`
        "#);
    }

    #[test]
    fn a_step_without_an_id_is_called_by_its_output_or_its_place() {
        let payload = Payload::read(&json!({"pipeline": [
            {"uses": "core.echo"},
            {"uses": "core.echo", "save_as": "greeting"},
            {"uses": "core.echo", "id": "mine", "save_as": "other"},
        ]}))
        .expect("a good payload");
        let ids: Vec<_> = payload.steps.iter().map(|step| step.id.as_str()).collect();
        assert_eq!(ids, ["step_1", "greeting", "mine"]);
    }

    #[test]
    fn two_steps_cannot_have_one_name() {
        let found = problems(&json!({"pipeline": [
            {"uses": "core.echo", "id": "a"},
            {"uses": "core.echo", "id": "b", "save_as": "a"},
        ]}));
        assert_eq!(
            found,
            ["/pipeline/1/save_as: the name \"a\" is taken by the step at /pipeline/0"]
        );
    }

    #[test]
    fn reading_what_was_written_gives_the_same_pipeline() {
        let payload = Payload::read(&json!({
            "params": {"city": "Berlin"},
            "pipeline": [
                {"uses": "a.b", "with": {"x": [1, {"y": null}]}, "if": true, "timeout_seconds": 9,
                 "retry": {"max_attempts": 2},
                 "on_error": [{"uses": "c.d", "save_as": "told", "on_error": "continue"}]},
            ],
        }))
        .expect("a good payload");
        assert_eq!(Payload::read(&payload.to_json()), Ok(payload));
    }

    #[test]
    fn steps_and_nesting_at_the_limit_are_taken_and_above_are_not() {
        let many = |count: usize| json!({"pipeline": vec![json!({"uses": "core.echo"}); count]});
        assert_eq!(problems(&many(STEPS_MAX)), Vec::<String>::new());
        assert_eq!(problems(&many(STEPS_MAX + 1)).len(), 1);

        let deep = |depth: usize| {
            let mut step = json!({"uses": "core.echo", "id": "s0"});
            for n in 1..depth {
                step = json!({"uses": "core.echo", "id": format!("s{n}"), "on_error": [step]});
            }
            json!({"pipeline": [step]})
        };
        assert_eq!(problems(&deep(NESTING_MAX)), Vec::<String>::new());
        assert_eq!(problems(&deep(NESTING_MAX + 1)).len(), 1);
    }
}
