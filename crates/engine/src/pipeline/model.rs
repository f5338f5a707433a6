//! The wire form of a pipeline: what a step may say.

use serde_json::{Map, Value, json};

use crate::task::Backoff;

/// The most steps of a pipeline, those of `on_error` lists included.
pub const STEPS_MAX: usize = 200;
/// How deep lists of steps may stand in each other; the pipeline itself is the first.
pub const NESTING_MAX: usize = 8;
/// The longest `id` and `save_as`, in bytes.
pub const ID_MAX: usize = 64;
/// The most entries of `params`.
pub const PARAMS_MAX: usize = 200;
/// How deep `with` may be nested.
pub const WITH_DEPTH_MAX: usize = 64;

/// `payload`: defaults of the parameters, and the steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Payload {
    /// Names and defaults of what a run can be given.
    pub params: Map<String, Value>,
    /// What to do, in this order.
    pub steps: Vec<StepSpec>,
}

/// One step, every default written out.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpec {
    /// Where it stands, relative to the payload: `/pipeline/0`.
    pub pointer: String,
    /// Unique in the pipeline.
    pub id: String,
    /// A second name for its output.
    pub save_as: Option<String>,
    /// What it does.
    pub action: Action,
    /// `true`, `false` or an expression.
    pub condition: Option<Value>,
    /// How long one try may take, in seconds; `None`: what the tool says.
    pub timeout_seconds: Option<u32>,
    /// How often it is tried, apart from the run's own attempts.
    pub retry: Option<Retrying>,
    /// What happens when it has failed for good.
    pub on_error: OnError,
}

/// What a step does. Control steps become further variants.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Calls a tool.
    Call {
        /// The tool's address.
        uses: String,
        /// Its input; texts in it may hold expressions.
        with: Map<String, Value>,
    },
}

/// A step's own `retry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retrying {
    /// How often it is tried at most, the first time included.
    pub max_attempts: u16,
    /// How the wait between two tries grows.
    pub backoff: Backoff,
}

/// What follows when a step has failed for good.
#[derive(Clone, Debug, PartialEq)]
pub enum OnError {
    /// The run fails.
    Fail,
    /// The run goes on.
    Continue,
    /// These steps are done, then the run goes on.
    Steps(Vec<StepSpec>),
}

impl Payload {
    /// The payload with every default written out.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let steps: Vec<Value> = self.steps.iter().map(StepSpec::to_json).collect();
        json!({"params": self.params, "pipeline": steps})
    }
}

impl StepSpec {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("id".into(), json!(self.id));
        let Action::Call { uses, with } = &self.action;
        out.insert("uses".into(), json!(uses));
        out.insert("with".into(), json!(with));
        if let Some(save_as) = &self.save_as {
            out.insert("save_as".into(), json!(save_as));
        }
        if let Some(condition) = &self.condition {
            out.insert("if".into(), condition.clone());
        }
        if let Some(seconds) = self.timeout_seconds {
            out.insert("timeout_seconds".into(), json!(seconds));
        }
        if let Some(retry) = &self.retry {
            let retry = json!({"max_attempts": retry.max_attempts, "backoff": retry.backoff});
            out.insert("retry".into(), retry);
        }
        out.insert(
            "on_error".into(),
            match &self.on_error {
                OnError::Fail => json!("fail"),
                OnError::Continue => json!("continue"),
                OnError::Steps(steps) => steps.iter().map(Self::to_json).collect(),
            },
        );
        Value::Object(out)
    }

    /// Every step of `steps` and, behind each, those of its `on_error`.
    pub fn walk<'s>(steps: &'s [Self], visit: &mut impl FnMut(&'s Self)) {
        for step in steps {
            visit(step);
            if let OnError::Steps(inner) = &step.on_error {
                Self::walk(inner, visit);
            }
        }
    }
}
