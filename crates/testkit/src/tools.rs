//! Tools for tests: they note every call and do what the test says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use orchestrator_engine::tool::{ToolCall, ToolCaller, ToolError, ToolSpec};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// One call that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Which tool.
    pub address: String,
    /// With what.
    pub input: Value,
    /// Under which idempotency key.
    pub key: String,
}

type Answer = Arc<dyn Fn(&ToolCall) -> Result<Value, ToolError> + Send + Sync>;

/// `test.*`: `test.echo` answers with its input; `test.hang` answers when it is canceled or
/// released; others do what [`FakeTools::on`] says.
#[derive(Clone, Default)]
pub struct FakeTools(Arc<Inner>);

#[derive(Default)]
struct Inner {
    calls: Mutex<Vec<Call>>,
    called: Notify,
    release: Notify,
    answers: Mutex<BTreeMap<String, Answer>>,
}

impl FakeTools {
    /// Makes calls of `address` do `answer`.
    #[must_use]
    pub fn on(
        self,
        address: &str,
        answer: impl Fn(&ToolCall) -> Result<Value, ToolError> + Send + Sync + 'static,
    ) -> Self {
        self.0
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(address.to_owned(), Arc::new(answer));
        self
    }

    /// What was called so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `count` calls have been made in all.
    pub async fn called(&self, count: usize) {
        loop {
            let notified = self.0.called.notified();
            if self.calls().len() >= count {
                return;
            }
            notified.await;
        }
    }

    /// Lets one call of `test.hang` answer.
    pub fn release(&self) {
        self.0.release.notify_one();
    }

    /// What the catalogue says of them: any object in, no scope.
    #[must_use]
    pub fn specs(&self) -> Vec<ToolSpec> {
        let answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let named = answers.keys().map(String::as_str);
        ["test.echo", "test.hang"]
            .into_iter()
            .chain(named)
            .map(|address| ToolSpec {
                address: address.to_owned(),
                description: "for tests".to_owned(),
                input_schema: json!({"type": "object"}),
                output_schema: None,
                timeout_seconds: 60,
                scope: None,
                source: "test".to_owned(),
            })
            .collect()
    }
}

impl ToolCaller for FakeTools {
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<Value, ToolError>> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner).push(Call {
            address: call.address.clone(),
            input: call.input.clone(),
            key: call.idempotency_key.clone(),
        });
        self.0.called.notify_waiters();
        let answer = self
            .0
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&call.address)
            .cloned();
        async move {
            match (answer, call.address.as_str()) {
                (Some(answer), _) => answer(&call),
                (None, "test.echo") => Ok(call.input),
                (None, "test.hang") => tokio::select! {
                    () = self.0.release.notified() => Ok(call.input),
                    () = call.cancel.cancelled() => Err(ToolError::Canceled { tool: call.address }),
                },
                (None, _) => Err(ToolError::Unknown { tool: call.address }),
            }
        }
        .boxed()
    }
}
