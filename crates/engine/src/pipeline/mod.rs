//! What a run does, step by step.
//!
//! A [`Pipeline`] is read from a task's payload, checked ([`Pipeline::check`]) when the task is
//! made and only compiled ([`Pipeline::load`]) when a worker runs it. It never changes and is shared
//! by all runs of a revision. [`execute`] walks it: it knows no database and no network, only a
//! [`ToolCaller`](crate::tool::ToolCaller) and a [`Journal`].
//!
//! `docs/pipelines.md` is the page for users; what it says is what this module does.
//!
//! What a later step sees of an earlier one, as `steps.<id>` and `steps.<save_as>`: the tool's
//! output; none when the step was skipped (so `is defined` holds); `{"error": {kind, message,
//! step}}` when it failed and `on_error` let the run go on.

mod backoff;
mod check;
mod execute;
pub mod expr;
mod input;
pub mod model;
mod outcome;
mod read;
mod redact;
mod schema;
mod scope;
mod step;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

pub use backoff::{BACKOFF_BASE, BACKOFF_FLOOR, BACKOFF_MAX, backoff};
pub use check::SECRETS_MAX;
pub use execute::execute;
pub use outcome::{Journal, JournalError, Outcome, Retry, RunContext, Secrets};
pub use redact::{REDACTED_MIN, Redactor};
pub use scope::Scope;
pub use step::GRACE;

use crate::problem::{Problem, nearest, pointer_token};
use crate::tool::Catalogue;
use expr::Text;
use input::Input;
use model::{Action, Payload, Retrying, StepSpec};

/// How long a tool may take when neither the step nor the catalogue says.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_mins(1);

/// A pipeline ready to run.
#[derive(Debug)]
pub struct Pipeline {
    payload: Payload,
    steps: Vec<Step>,
    /// The names of the secrets it uses.
    secrets: BTreeSet<String>,
    /// Whether anything in it is evaluated: without it, no scope is made.
    has_expressions: bool,
    /// The outermost names that its expressions read.
    reads: BTreeSet<String>,
}

#[derive(Debug)]
struct Step {
    id: String,
    /// Under which its output is known: id and `save_as`.
    names: Vec<String>,
    path: String,
    uses: String,
    input: Input,
    uses_secrets: bool,
    condition: Condition,
    timeout: Duration,
    retry: Option<Retrying>,
    on_error: Handler,
}

#[derive(Debug)]
enum Condition {
    Always,
    Never,
    When(Text),
}

#[derive(Debug)]
enum Handler {
    Fail,
    Continue,
    Steps(Vec<Step>),
}

impl Step {
    fn has_expressions(&self) -> bool {
        !self.input.is_constant()
            || matches!(self.condition, Condition::When(_))
            || matches!(&self.on_error, Handler::Steps(steps) if steps.iter().any(Self::has_expressions))
    }
}

impl Pipeline {
    /// Reads and checks a payload `{"params": {…}, "pipeline": […]}` as a task is made: everything
    /// that can be known before a run. Where a step says no timeout, the tool's becomes the step's.
    ///
    /// # Errors
    ///
    /// Every problem, with JSON pointers relative to the payload (`/pipeline/0/with/url`).
    pub fn check(payload: &Value, catalogue: &Catalogue) -> Result<Self, Vec<Problem>> {
        let mut payload = Payload::read(payload)?;
        pin_timeouts(&mut payload.steps, catalogue);
        Self::compile(payload, Some(catalogue))
    }

    /// Reads and compiles a payload that was checked when it was stored. Tools are not looked up:
    /// a worker may run what another process's catalogue knew.
    ///
    /// # Errors
    ///
    /// Every problem, as with [`check`](Self::check).
    pub fn load(payload: &Value) -> Result<Self, Vec<Problem>> {
        Self::compile(Payload::read(payload)?, None)
    }

    /// Whether the addresses of all tools in it begin with `prefix`.
    #[must_use]
    pub fn uses_only(&self, prefix: &str) -> bool {
        fn all(steps: &[Step], prefix: &str) -> bool {
            steps.iter().all(|step| {
                let handled = match &step.on_error {
                    Handler::Steps(steps) => all(steps, prefix),
                    Handler::Fail | Handler::Continue => true,
                };
                step.uses.starts_with(prefix) && handled
            })
        }
        all(&self.steps, prefix)
    }

    /// Whether an expression in it reads `name`, such as `last`: else nobody needs its value.
    #[must_use]
    pub fn reads(&self, name: &str) -> bool {
        self.reads.contains(name)
    }

    fn compile(payload: Payload, catalogue: Option<&Catalogue>) -> Result<Self, Vec<Problem>> {
        let mut checker = check::Checker::new(&payload, catalogue);
        let steps = checker.run();
        let check::Checker { problems, secrets, reads, .. } = checker;
        if !problems.is_empty() {
            return Err(problems);
        }
        let has_expressions = steps.iter().any(Step::has_expressions);
        Ok(Self { payload, steps, secrets, has_expressions, reads })
    }

    /// The payload with ids and defaults written out. Reading it gives the same pipeline.
    #[must_use]
    pub fn normalised(&self) -> Value {
        self.payload.to_json()
    }

    /// The declared parameters and their defaults.
    #[must_use]
    pub fn params(&self) -> &Map<String, Value> {
        &self.payload.params
    }

    /// What is wrong with the parameters that a run is to be given; pointers are relative to them.
    #[must_use]
    pub fn params_problems(&self, given: &Map<String, Value>) -> Vec<Problem> {
        let declared = &self.payload.params;
        given
            .keys()
            .filter(|name| !declared.contains_key(*name))
            .map(|name| {
                let hint = nearest(name, declared.keys().map(String::as_str))
                    .map_or_else(String::new, |near| format!(". Did you mean {near:?}?"));
                Problem::new(
                    format!("/{}", pointer_token(name)),
                    format!("the pipeline declares no parameter {name:?}{hint}"),
                )
            })
            .collect()
    }

    /// The addresses of the tools it calls.
    #[must_use]
    pub fn tools(&self) -> BTreeSet<&str> {
        let mut tools = BTreeSet::new();
        StepSpec::walk(&self.payload.steps, &mut |step| {
            let Action::Call { uses, .. } = &step.action;
            tools.insert(uses.as_str());
        });
        tools
    }

    /// The names of the secrets it uses.
    #[must_use]
    pub fn secrets(&self) -> &BTreeSet<String> {
        &self.secrets
    }

    /// The scopes an agent needs to own this pipeline: those of its tools, and `secret:<NAME>` for
    /// each secret it names. A tool that the catalogue does not know asks for none.
    #[must_use]
    pub fn required_scopes(&self, catalogue: &Catalogue) -> BTreeSet<String> {
        self.scopes_by(|tool| catalogue.get(tool)?.scope.clone())
    }

    /// The same, where `of_tool` says which scope a tool asks for.
    pub fn scopes_by(&self, of_tool: impl Fn(&str) -> Option<String>) -> BTreeSet<String> {
        let tools = self.tools().into_iter().filter_map(of_tool);
        tools.chain(self.secrets.iter().map(|name| format!("secret:{name}"))).collect()
    }
}

fn pin_timeouts(steps: &mut [StepSpec], catalogue: &Catalogue) {
    for step in steps {
        let Action::Call { uses, .. } = &step.action;
        if step.timeout_seconds.is_none() {
            step.timeout_seconds = catalogue.get(uses).map(|tool| tool.timeout_seconds);
        }
        if let model::OnError::Steps(steps) = &mut step.on_error {
            pin_timeouts(steps, catalogue);
        }
    }
}

#[cfg(test)]
mod tests;
