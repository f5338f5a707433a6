//! The invariants, as a metric that somebody can be woken by.

use orchestrator_boot::Context;
use orchestrator_engine::store::{StoreError, invariant, reach};

pub(super) async fn invariants(ctx: &Context) -> Result<(), StoreError> {
    let mut conn = reach(&ctx.pool).await?;
    for found in invariant::check(&mut conn).await? {
        ctx.metrics
            .scheduler()
            .invariant_violations
            .with_label_values(&[found.name])
            .set(found.violations);
        if found.violations > 0 {
            tracing::error!(
                invariant = found.name,
                violations = found.violations,
                "an invariant is violated: {}",
                found.says
            );
        }
    }
    Ok(())
}
