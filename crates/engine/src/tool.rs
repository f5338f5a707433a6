//! Tools: what a step `uses`. Here is what the rest of the system knows of them; the tools
//! themselves live in `crates/tools`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::id::RunId;
use crate::trace::TraceParent;

/// What the catalogue says of one tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// `server.tool`, as a step names it in `uses`.
    pub address: String,
    /// For people and models: what it does.
    pub description: String,
    /// JSON Schema (2020-12) of `with`.
    pub input_schema: Value,
    /// JSON Schema of the result, where the tool declares one.
    pub output_schema: Option<Value>,
    /// How long a call may take when the step does not say, in seconds.
    pub timeout_seconds: u32,
    /// The scope an agent needs to use it; `None`: any agent may.
    pub scope: Option<String>,
    /// Where it comes from: `builtin`, or `mcp:<server>`.
    pub source: String,
}

/// The tools known, by address.
pub type Catalogue = BTreeMap<String, ToolSpec>;

/// One call of a tool.
#[derive(Clone, Debug)]
pub struct ToolCall {
    /// Which tool: `server.tool`.
    pub address: String,
    /// The step's `with`, every expression resolved. May hold secrets: never log or store it.
    pub input: Value,
    /// How long the call may take. The tool gives up by itself; the caller also stops waiting.
    pub timeout: Duration,
    /// `<run_id>/<step path>`: the same for every attempt at the same step of the same run, so that
    /// a receiver can recognise a repetition.
    pub idempotency_key: String,
    /// The run the call belongs to.
    pub run_id: RunId,
    /// The span of the call, where its run is traced: to be handed on to whoever is asked.
    pub trace: Option<TraceParent>,
    /// Set when the run is canceled, the process is to end, or the time is over: stop soon.
    pub cancel: CancellationToken,
}

/// Calls tools. The worker's is the registry of `crates/tools`; tests bring their own.
pub trait ToolCaller: Send + Sync + 'static {
    /// Calls the tool and waits for its result.
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<Value, ToolError>>;
}

/// Why a tool call failed, and so what to do next. Texts are shown to the owner of the run: they
/// hold no secrets and no stack traces, and at most [`ERROR_TEXT_MAX`] bytes of what came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The other side may have done it or not. Another try may succeed.
    #[error("tool {tool} did not answer within {} s", waited.as_secs_f32())]
    Timeout {
        /// The tool's address.
        tool: String,
        /// How long it was waited for.
        waited: Duration,
    },

    /// It was not reached at all. Another try may succeed.
    #[error("tool {tool} could not be reached: {reason}")]
    Unreachable {
        /// The tool's address.
        tool: String,
        /// What happened, with the host but never with credentials.
        reason: String,
    },

    /// It answered that it cannot now. Another try may succeed.
    #[error("tool {tool} failed: {reason}")]
    Busy {
        /// The tool's address.
        tool: String,
        /// What it answered.
        reason: String,
        /// When the other side asked to be asked again, if it said so.
        retry_after: Option<Duration>,
    },

    /// It answered that it will not, or the input is wrong. Trying again would fail the same way.
    #[error("tool {tool} refused: {reason}")]
    Refused {
        /// The tool's address.
        tool: String,
        /// What it answered, or what is wrong with the input.
        reason: String,
    },

    /// No worker here knows the tool. Another worker may: its server may be starting.
    #[error("tool {tool} is not available on this worker")]
    Unknown {
        /// The tool's address.
        tool: String,
    },

    /// The call was given up because the run or the process is to end.
    #[error("tool {tool} was canceled")]
    Canceled {
        /// The tool's address.
        tool: String,
    },
}

/// The longest piece of a foreign answer quoted in an error, in bytes.
pub const ERROR_TEXT_MAX: usize = 2_000;

impl ToolError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. }
            | Self::Unreachable { .. }
            | Self::Busy { .. }
            | Self::Unknown { .. } => true,
            Self::Refused { .. } | Self::Canceled { .. } => false,
        }
    }

    /// A word for programs: the `kind` of a run's or step's error.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::Busy { .. } => "tool_failed",
            Self::Refused { .. } => "refused",
            Self::Unknown { .. } => "unknown_tool",
            Self::Canceled { .. } => "canceled",
        }
    }
}
