//! One call of a tool: within its time, ended when the run is to end.

use std::time::Duration;

use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use super::expr::too_much;
use crate::run::RunError;
use crate::tool::{ERROR_TEXT_MAX, ToolCall, ToolCaller, ToolError};

/// How long a tool that was told to stop may take to do so.
pub const GRACE: Duration = Duration::from_secs(1);

/// How a call ended.
pub(super) enum Called {
    Answered(Result<Json, ToolError>),
    /// The run is to end, and the tool did not answer any more.
    Canceled,
}

/// Calls the tool. When the time is over or `cancel` is set, the tool is told and gets [`GRACE`] to
/// answer: what it has done by then counts.
pub(super) async fn call(
    caller: &dyn ToolCaller,
    call: ToolCall,
    cancel: &CancellationToken,
) -> Called {
    let timeout = call.timeout;
    let stop = call.cancel.clone();
    let tool = call.address.clone();
    let mut answer = caller.call(call);
    let late = tokio::select! {
        // In this order: a tool that answers at once costs no timer.
        biased;
        result = &mut answer => return match result {
            // Told to stop, and it did.
            Err(_) if cancel.is_cancelled() => Called::Canceled,
            result => Called::Answered(result),
        },
        () = cancel.cancelled() => false,
        () = tokio::time::sleep(timeout) => true,
    };
    stop.cancel();
    match tokio::time::timeout(GRACE, answer).await {
        Ok(Ok(output)) => Called::Answered(Ok(output)),
        Ok(Err(ToolError::Canceled { .. })) | Err(_) if late => {
            Called::Answered(Err(ToolError::Timeout { tool, waited: timeout }))
        }
        Ok(Err(error)) if late => Called::Answered(Err(error)),
        _ => Called::Canceled,
    }
}

/// Why a step failed, and what that means for another try.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: RunError,
    pub(super) is_transient: bool,
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that would come again.
    pub(super) fn lasting(kind: &str, message: impl Into<String>) -> Self {
        let error = RunError { kind: kind.to_owned(), message: message.into(), step: None };
        Self { error, is_transient: false, retry_after: None }
    }

    pub(super) fn passing(kind: &str, message: impl Into<String>) -> Self {
        Self { is_transient: true, ..Self::lasting(kind, message) }
    }
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        let retry_after = match &error {
            ToolError::Busy { retry_after, .. } => *retry_after,
            _ => None,
        };
        Self {
            is_transient: error.is_transient(),
            retry_after,
            ..Self::lasting(error.kind(), error.to_string())
        }
    }
}

/// Refuses what is too large or too deep to be kept; `what` begins the sentence, `kind` is that of the error.
pub(super) fn bounded(value: &Json, max: usize, kind: &str, what: &str) -> Result<(), Failure> {
    match too_much(value, max) {
        None => Ok(()),
        Some(found) => Err(Failure::lasting(kind, format!("{what} {}", found.told(max)))),
    }
}

/// Cuts a message that repeats too much of a value.
pub(super) fn shorten(message: &mut String) {
    if message.len() > ERROR_TEXT_MAX {
        message.truncate(message.floor_char_boundary(ERROR_TEXT_MAX));
        message.push('…');
    }
}
