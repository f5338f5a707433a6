//! From the wire form to a pipeline that can be executed: compiles every expression, checks every
//! name, tool and constant input. What passes here can run.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::expr::{self, RENDERED_MAX, Text, Use};
use super::input::Input;
use super::model::{Action, OnError, Payload, StepSpec};
use super::scope::RUN_FIELDS;
use super::{Condition, DEFAULT_TIMEOUT, Handler, Step, schema};
use crate::problem::{Problem, nearest, pointer_token};
use crate::tool::Catalogue;

/// The most secrets one pipeline may name.
pub const SECRETS_MAX: usize = 50;

pub(super) struct Checker<'p> {
    payload: &'p Payload,
    catalogue: Option<&'p Catalogue>,
    pub(super) problems: Vec<Problem>,
    pub(super) secrets: BTreeSet<String>,
    /// The outermost names that expressions read: `steps`, `last`, ….
    pub(super) reads: BTreeSet<String>,
    /// How often a secret was named so far.
    secret_uses: usize,
    /// The names of outputs that a step can see where the checker is.
    visible: Vec<String>,
    /// Every name of every output.
    all: BTreeSet<String>,
}

/// Where an expression stands, as far as names depend on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    With,
    If,
}

impl<'p> Checker<'p> {
    pub(super) fn new(payload: &'p Payload, catalogue: Option<&'p Catalogue>) -> Self {
        let mut all = BTreeSet::new();
        StepSpec::walk(&payload.steps, &mut |step| all.extend(names(step)));
        Self {
            payload,
            catalogue,
            problems: Vec::new(),
            secrets: BTreeSet::new(),
            reads: BTreeSet::new(),
            secret_uses: 0,
            visible: Vec::new(),
            all,
        }
    }

    /// Compiles the whole pipeline.
    pub(super) fn run(&mut self) -> Vec<Step> {
        let payload = self.payload;
        let steps = self.steps(&payload.steps, "", false);
        if self.secrets.len() > SECRETS_MAX {
            self.problem("/pipeline", format!("names more than {SECRETS_MAX} secrets"));
        }
        steps
    }

    fn problem(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(pointer, message));
    }

    /// Compiles `specs`, whose paths begin with `prefix`.
    fn steps(&mut self, specs: &[StepSpec], prefix: &str, in_handler: bool) -> Vec<Step> {
        specs.iter().map(|spec| self.step(spec, prefix, in_handler)).collect()
    }

    fn step(&mut self, spec: &StepSpec, prefix: &str, in_handler: bool) -> Step {
        let path = format!("{prefix}{}", spec.id);
        let Action::Call { uses, with } = &spec.action;
        self.tool(spec, uses, with);
        let before = self.secret_uses;
        let condition = self.condition(spec, in_handler);
        let input = self.input(
            &Json::Object(with.clone()),
            &mut format!("{}/with", spec.pointer),
            in_handler,
        );
        let uses_secrets = self.secret_uses > before;

        // What a handler saves is there only when it ran: the steps behind cannot count on it.
        let visible = self.visible.len();
        let on_error = match &spec.on_error {
            OnError::Fail => Handler::Fail,
            OnError::Continue => Handler::Continue,
            OnError::Steps(steps) => {
                Handler::Steps(self.steps(steps, &format!("{path}/on_error/"), true))
            }
        };
        self.visible.truncate(visible);
        let names: Vec<String> = names(spec).collect();
        self.visible.extend(names.iter().cloned());
        Step {
            id: spec.id.clone(),
            names,
            path,
            uses: uses.clone(),
            input,
            uses_secrets,
            condition,
            timeout: spec
                .timeout_seconds
                .map_or(DEFAULT_TIMEOUT, |seconds| Duration::from_secs(seconds.into())),
            retry: spec.retry,
            on_error,
        }
    }

    fn tool(&mut self, spec: &StepSpec, uses: &str, with: &Map<String, Json>) {
        let Some(catalogue) = self.catalogue else { return };
        let Some(tool) = catalogue.get(uses) else {
            let hint = nearest(uses, catalogue.keys().map(String::as_str))
                .map_or_else(String::new, |near| format!(". Did you mean {near:?}?"));
            let pointer = format!("{}/uses", spec.pointer);
            return self.problem(pointer, format!("unknown tool {uses:?}{hint}"));
        };
        let found = schema::problems(&tool.input_schema, with, &format!("{}/with", spec.pointer));
        self.problems.extend(found);
    }

    fn condition(&mut self, spec: &StepSpec, in_handler: bool) -> Condition {
        let pointer = format!("{}/if", spec.pointer);
        match &spec.condition {
            None | Some(Json::Bool(true)) => Condition::Always,
            Some(Json::Bool(false)) => Condition::Never,
            Some(Json::String(text)) => {
                let Some(compiled) = self.text(text, &pointer, Place::If, in_handler) else {
                    return Condition::Never;
                };
                if !compiled.is_single() {
                    self.problem(
                        pointer,
                        format!(
                            "must be true, false or one expression in ${{…}}, such as \
                             \"${{{}}}\"",
                            if expr::is_plain(text) { text.trim() } else { "params.city != ''" }
                        ),
                    );
                }
                Condition::When(compiled)
            }
            Some(_) => {
                self.problem(pointer, "must be true, false or an expression in ${…}");
                Condition::Never
            }
        }
    }

    /// Compiles a value of `with` that stands at `pointer`.
    fn input(&mut self, value: &Json, pointer: &mut String, in_handler: bool) -> Input {
        let length = pointer.len();
        match value {
            Json::String(text) if !expr::is_plain(text) => {
                let before = self.secret_uses;
                match self.text(text, pointer, Place::With, in_handler) {
                    Some(text) => match text.constant() {
                        Some(plain) => Input::Constant(plain.into()),
                        None => Input::Text { text, secret: self.secret_uses > before },
                    },
                    None => Input::Constant(Json::Null),
                }
            }
            Json::Array(list) => {
                let mut entries = Vec::with_capacity(list.len());
                for (n, entry) in list.iter().enumerate() {
                    let _ = write!(pointer, "/{n}");
                    entries.push(self.input(entry, pointer, in_handler));
                    pointer.truncate(length);
                }
                fold(value, entries.iter().all(Input::is_constant), || Input::List(entries))
            }
            Json::Object(map) => {
                let mut entries = Vec::with_capacity(map.len());
                for (name, entry) in map {
                    pointer.push('/');
                    pointer.push_str(&pointer_token(name));
                    if !expr::is_plain(name) {
                        self.problem(pointer.as_str(), "a name cannot hold an expression");
                    }
                    entries.push((name.clone(), self.input(entry, pointer, in_handler)));
                    pointer.truncate(length);
                }
                let constant = entries.iter().all(|(_, entry)| entry.is_constant());
                fold(value, constant, || Input::Map(entries))
            }
            constant => {
                if constant.as_str().is_some_and(|text| text.len() > RENDERED_MAX) {
                    let message = format!("must have at most {RENDERED_MAX} bytes");
                    self.problem(pointer.as_str(), message);
                }
                Input::Constant(constant.clone())
            }
        }
    }

    fn text(&mut self, text: &str, pointer: &str, place: Place, in_handler: bool) -> Option<Text> {
        match Text::compile(text) {
            Ok((compiled, uses)) => {
                for name in uses {
                    self.reads.insert(name.root.clone());
                    if let Err(message) = self.name(&name, place, in_handler) {
                        let fault = expr::Fault { at: Some(name.at), message };
                        self.problem(pointer, fault.describe(text));
                    }
                }
                Some(compiled)
            }
            Err(faults) => {
                for fault in faults {
                    self.problem(pointer, fault.describe(text));
                }
                None
            }
        }
    }

    /// Whether `name` has a value where it stands.
    fn name(&mut self, name: &Use, place: Place, in_handler: bool) -> Result<(), String> {
        match (name.root.as_str(), name.key.as_deref()) {
            ("params", Some(key)) => self.param(key, name.guarded),
            ("steps", Some(key)) => self.output(key),
            ("run", Some(key)) if !RUN_FIELDS.contains(&key) => Err(did_you_mean(
                &format!("run has no {key:?}, but {}", RUN_FIELDS.join(", ")),
                nearest(key, RUN_FIELDS.iter().copied()),
            )),
            ("secrets", _) if place != Place::With => {
                Err("secrets can be used only in `with`".to_owned())
            }
            ("secrets", None) => Err("write out which secret: secrets.NAME".to_owned()),
            ("secrets", Some(key)) => {
                self.secret_uses += 1;
                self.secrets.insert(key.to_owned());
                Ok(())
            }
            ("error", _) if !in_handler => {
                Err("error has a value only in the steps of an on_error list".to_owned())
            }
            ("item" | "index", _) => Err(format!("{} has a value only inside foreach", name.root)),
            _ => Ok(()),
        }
    }

    fn param(&self, key: &str, guarded: bool) -> Result<(), String> {
        let declared = &self.payload.params;
        if guarded || declared.contains_key(key) {
            return Ok(());
        }
        Err(nearest(key, declared.keys().map(String::as_str)).map_or_else(
            || {
                format!(
                    "params.{key} is not declared: add it to `params` with a default, or write \
                     params.{key} | default(…)"
                )
            },
            |near| format!("params.{key} is not declared. Did you mean params.{near}?"),
        ))
    }

    fn output(&self, key: &str) -> Result<(), String> {
        if self.visible.iter().any(|name| name == key) {
            return Ok(());
        }
        if self.all.contains(key) {
            return Err(format!(
                "steps.{key} cannot be used here: only the output of an earlier step can"
            ));
        }
        let near = nearest(key, self.visible.iter().map(String::as_str));
        Err(match near {
            Some(near) => format!("there is no step {key:?}. Did you mean steps.{near}?"),
            None if self.visible.is_empty() => {
                format!("there is no step {key:?}: no step comes before this one")
            }
            None => {
                format!("there is no step {key:?}. Earlier steps are {}.", self.visible.join(", "))
            }
        })
    }
}

fn did_you_mean(message: &str, near: Option<&str>) -> String {
    near.map_or_else(|| message.to_owned(), |near| format!("{message}. Did you mean {near:?}?"))
}

/// The names under which the output of a step is known.
fn names(spec: &StepSpec) -> impl Iterator<Item = String> {
    let save_as = spec.save_as.as_ref().filter(|name| **name != spec.id);
    std::iter::once(&spec.id).chain(save_as).cloned()
}

/// `value` itself where all of it is constant.
fn fold(value: &Json, constant: bool, otherwise: impl FnOnce() -> Input) -> Input {
    if constant && !holds_escape(value) { Input::Constant(value.clone()) } else { otherwise() }
}

/// Whether a text in `value` is written otherwise than it is meant: `$${`.
fn holds_escape(value: &Json) -> bool {
    match value {
        Json::String(text) => !expr::is_plain(text),
        Json::Array(list) => list.iter().any(holds_escape),
        Json::Object(map) => map.values().any(holds_escape),
        _ => false,
    }
}
