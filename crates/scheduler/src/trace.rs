//! The first span of the trace of each run that a scheduler made.

use orchestrator_boot::Context;
use orchestrator_engine::run::Trigger;
use orchestrator_engine::streams::Lifecycle;

/// Sends a span for each new run that is told of, from when it was decided on until now: what made them
/// is durable.
pub(crate) fn made(ctx: &Context, told: &[Lifecycle], by: Trigger) {
    if !ctx.traces.is_on() {
        return;
    }
    let now = ctx.clock.now();
    for change in told.iter().filter(|change| change.kind == "run.queued") {
        if let Some(run) = change.run_id {
            ctx.traces.made(run, change.task_id, by, (change.at, now), None);
        }
    }
}
