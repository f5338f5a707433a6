//! Tools that need nothing from outside: `core.echo`, `core.log`, `core.fail`.

use futures::future::{self, BoxFuture, FutureExt};
use orchestrator_engine::tool::{ToolCall, ToolError, ToolSpec};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::failure::{busy, excerpt, refused};
use crate::registry::{Tool, builtin};

/// The address of the tool that returns its input.
pub const ECHO: &str = "core.echo";
const LOG: &str = "core.log";
const FAIL: &str = "core.fail";

/// The longest message that is written to the log, in bytes.
pub const LOG_MESSAGE_MAX: usize = 8 * 1024;

/// What the catalogue says of `core.*`.
#[must_use]
pub fn specs() -> [ToolSpec; 3] {
    let echo = json!({"type": "object"});
    let log = json!({
        "type": "object",
        "properties": {
            "message": {"type": "string", "description": "What to write."},
            "level": {"enum": ["debug", "info", "warn", "error"], "default": "info"},
            "fields": {"type": "object", "description": "Values to write beside the message."},
        },
        "required": ["message"],
        "additionalProperties": false,
    });
    let logged = json!({
        "type": "object",
        "properties": {"logged": {"const": true}},
        "required": ["logged"],
    });
    let fail = json!({
        "type": "object",
        "properties": {
            "message": {"type": "string", "description": "Why; shown as the step's error."},
            "transient": {
                "type": "boolean", "default": false,
                "description": "Whether another try may succeed.",
            },
        },
        "required": ["message"],
        "additionalProperties": false,
    });
    [
        builtin(ECHO, "Returns its input as it is.", echo, 5, None),
        ToolSpec {
            output_schema: Some(logged),
            ..builtin(LOG, "Writes a line to the worker's log, with the run's id.", log, 5, None)
        },
        builtin(FAIL, "Fails the step, for good or so that it is tried again.", fail, 5, None),
    ]
}

/// `core.echo`. Any object comes back; it is moved, not copied.
///
/// # Errors
///
/// [`ToolError::Refused`] when the input is no object.
pub fn echo(call: ToolCall) -> Result<Value, ToolError> {
    if call.input.is_object() {
        Ok(call.input)
    } else {
        Err(refused(ECHO, "the input is not an object"))
    }
}

/// `core.echo` as a tool, for lists; the registry calls [`echo`] directly.
pub struct Echo;

impl Tool for Echo {
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<Value, ToolError>> {
        future::ready(echo(call)).boxed()
    }
}

/// `core.log`.
pub struct Log;

#[derive(Deserialize)]
struct LogInput {
    message: String,
    #[serde(default)]
    level: Level,
    fields: Option<Value>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

impl Tool for Log {
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<Value, ToolError>> {
        future::ready(log(call)).boxed()
    }
}

fn log(call: ToolCall) -> Result<Value, ToolError> {
    let input: LogInput =
        serde_json::from_value(call.input).map_err(|error| refused(LOG, error.to_string()))?;
    let message = excerpt(input.message.as_bytes(), LOG_MESSAGE_MAX);
    let fields = input.fields.map(|fields| excerpt(fields.to_string().as_bytes(), LOG_MESSAGE_MAX));
    let fields = fields.as_deref();
    // The level of a tracing event is part of its call site, so there is one for each.
    match input.level {
        Level::Debug => tracing::debug!(run.id = %call.run_id, fields, "{message}"),
        Level::Info => tracing::info!(run.id = %call.run_id, fields, "{message}"),
        Level::Warn => tracing::warn!(run.id = %call.run_id, fields, "{message}"),
        Level::Error => tracing::error!(run.id = %call.run_id, fields, "{message}"),
    }
    Ok(json!({"logged": true}))
}

/// `core.fail`.
pub struct Fail;

#[derive(Deserialize)]
struct FailInput {
    message: String,
    #[serde(default)]
    transient: bool,
}

impl Tool for Fail {
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<Value, ToolError>> {
        let error = match serde_json::from_value(call.input) {
            Ok(FailInput { message, transient: true }) => busy(FAIL, message),
            Ok(FailInput { message, transient: false }) => refused(FAIL, message),
            Err(error) => refused(FAIL, error.to_string()),
        };
        future::ready(Err(error)).boxed()
    }
}
