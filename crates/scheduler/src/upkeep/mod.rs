//! The chores: each a file, done by every scheduler, harmless when done twice or at once. Only `prune`, which
//! changes the schema, is done by one at a time: it takes a lock, and the others pass it over.
//!
//! To add one: a file with an `async fn(&Context) -> Result<(), StoreError>`, a line in `DUTIES`
//! with how often, and a sentence in `docs/architecture.md`.

mod expire;
pub mod measure;
mod prune;
mod verify;
mod workers;

use std::time::Duration;

use futures::future::BoxFuture;
use orchestrator_boot::{Context, within};
use orchestrator_engine::store::StoreError;
use tokio_util::sync::CancellationToken;

type Duty = for<'a> fn(&'a Context) -> BoxFuture<'a, Result<(), StoreError>>;

/// Every chore: its name in metrics and logs, how often it is due, and what it does.
const DUTIES: &[(&str, Duration, Duty)] = &[
    ("expire", Duration::from_secs(10), |ctx| Box::pin(expire::runs(ctx))),
    ("measure", Duration::from_secs(15), |ctx| Box::pin(measure::queue(ctx))),
    ("workers", Duration::from_secs(30), |ctx| Box::pin(workers::forget(ctx))),
    ("verify", Duration::from_mins(5), |ctx| Box::pin(verify::invariants(ctx))),
    ("prune", Duration::from_hours(1), |ctx| Box::pin(prune::old(ctx))),
];

/// A chore may take as long as it is to the next, but at least so long.
const DUTY_MIN: Duration = Duration::from_mins(1);

/// Does the chores until `stop`, each at its start and then again and again.
pub async fn run(ctx: Context, stop: CancellationToken) {
    for (name, _, _) in DUTIES {
        ctx.metrics.scheduler().upkeep_errors.with_label_values(&[*name]);
    }
    let chores = DUTIES.iter().map(|(name, every, duty)| repeat(&ctx, name, *every, *duty));
    tokio::select! {
        () = stop.cancelled() => {}
        _ = futures::future::join_all(chores) => {}
    }
}

async fn repeat(ctx: &Context, name: &'static str, every: Duration, duty: Duty) {
    loop {
        if let Err(error) = within(every.max(DUTY_MIN), name, duty(ctx)).await {
            ctx.metrics.scheduler().upkeep_errors.with_label_values(&[name]).inc();
            tracing::warn!(
                duty = name,
                error = &error as &dyn std::error::Error,
                "a chore failed; it will be tried again in {} s",
                every.as_secs()
            );
        }
        tokio::time::sleep(every).await;
    }
}
