//! Leases due work, runs pipelines, records results.
//!
//! Postgres says what is due; Redis only says when to look. A run is held by a lease, renewed in the
//! background; what a run has to write goes through one group commit. The worker writes about no run
//! whose lease it has lost, and never sleeps in a slot: a run that is to be tried later goes back to
//! the queue.

mod after;
mod ahead;
mod commit;
mod definitions;
mod held;
mod lease;
mod listen;
mod perform;
mod renew;
mod settle;
mod slot;
mod tell;
mod toolbox;
mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use orchestrator_boot::{BoxError, Context, Service, in_time};
use orchestrator_engine::config::Secret;
use orchestrator_engine::pipeline::Secrets;
use orchestrator_engine::streams::Teller;
use orchestrator_engine::tool::{ToolCaller, ToolSpec};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use ahead::{Ahead, Pace};
use commit::Committer;
use definitions::Definitions;
use held::Holding;
use slot::Slots;
use trace::Tracer;

/// The most runs that are over for us and not yet written: what a slow database holds up is bounded.
/// They take no slot, so others can begin meanwhile.
const UNWRITTEN_MAX: usize = 1_000;

/// What the parts of a worker share.
struct Worker {
    ctx: Context,
    tools: Arc<dyn ToolCaller>,
    /// What the tools ask for.
    catalogue: watch::Receiver<Vec<ToolSpec>>,
    secrets: Arc<dyn Secrets>,
    definitions: Definitions,
    holding: Arc<Holding>,
    committer: Committer,
    tracer: Tracer,
    teller: Teller,
    slots: Arc<Slots>,
    /// Leased runs that wait for a slot.
    ahead: Ahead,
    /// How quick runs are.
    pace: Pace,
    /// Bounds how many runs are being worked on, or over and not yet written.
    unwritten: Arc<Semaphore>,
    /// Asks for a renewal before its time.
    look: Notify,
    /// There is a held run again.
    busy: Notify,
    /// A run went back to the queue: the time of the next one has changed.
    again: Notify,
    /// The database may have forgotten that this worker sleeps.
    forgotten: AtomicBool,
}

/// The tools a worker offers and calls.
pub struct Offer {
    /// Calls them.
    pub caller: Arc<dyn ToolCaller>,
    /// What there is now; changes when an MCP server comes or goes.
    pub catalogue: watch::Receiver<Vec<ToolSpec>>,
}

/// Runs a worker with the tools that the settings name, until `stop`; then gives its leases back.
///
/// # Errors
///
/// When the settings of the tools are wrong, with a sentence that says how.
pub async fn serve(ctx: Context, stop: CancellationToken) -> Result<(), BoxError> {
    ctx.health.expect("worker");
    let toolbox = toolbox::open(&ctx).await?;
    let offer = toolbox.offer(stop.clone());
    let ended = serve_with(ctx, offer, stop).await;
    toolbox.close().await;
    ended
}

/// Runs a worker with these tools, until `stop`; then gives its leases back.
///
/// # Errors
///
/// When a part of it panicked; an outage of Postgres or Redis is waited out.
pub async fn serve_with(
    ctx: Context,
    offer: Offer,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let holding = Arc::new(Holding::default());
    // Who asks us to stop, or a part of us that has failed.
    let stop = stop.child_token();
    let (committer, mut committing) = Committer::start(&ctx, &holding);
    let (teller, telling) = Teller::start(ctx.streams.clone());
    let worker = Arc::new(Worker {
        tools: offer.caller,
        catalogue: offer.catalogue.clone(),
        secrets: Arc::new(SettingsSecrets(ctx.settings.secrets.clone())),
        definitions: Definitions::default(),
        holding,
        committer,
        tracer: Tracer::default(),
        teller,
        slots: Arc::new(Slots::new(ctx.settings.worker.concurrency.into())),
        ahead: Ahead::default(),
        pace: Pace::default(),
        unwritten: Arc::new(Semaphore::new(
            usize::from(ctx.settings.worker.concurrency) + UNWRITTEN_MAX,
        )),
        look: Notify::new(),
        busy: Notify::new(),
        again: Notify::new(),
        forgotten: AtomicBool::new(false),
        ctx: ctx.clone(),
    });
    let capacity = usize::from(ctx.settings.worker.concurrency);
    ctx.metrics.worker().capacity.set(i64::from(ctx.settings.worker.concurrency));
    let offered = offer.catalogue.borrow().clone();
    toolbox::publish(&ctx, &offered).await;
    tracing::info!(concurrency = capacity, "working");

    let pulse = {
        let worker = Arc::clone(&worker);
        let load = move || (capacity, worker.holding.len());
        tokio::spawn(orchestrator_boot::beat(ctx.clone(), Service::Worker, load, stop.clone()))
    };
    let mut helpers = {
        let worker = Arc::clone(&worker);
        tokio::spawn(async move {
            tokio::join!(
                renew::run(&worker),
                renew::show_steps(&worker),
                listen::run(&worker),
                toolbox::keep_published(&worker.ctx, offer.catalogue),
            );
        })
    };
    // A task among the others: whoever calls this may be on a thread that has to be woken for each slot
    // that becomes free.
    let mut taking = tokio::spawn(lease::run(Arc::clone(&worker), stop.clone()));
    let failed = tokio::select! {
        ended = &mut taking => ended.err(),
        ended = &mut helpers => ended.err(),
        Some(ended) = committing.join_next() => ended.err(),
    };
    if failed.is_some() {
        // Without renewals or writes, what it holds would be lost, or held for ever. Whoever watches the
        // process starts another.
        tracing::error!("a part of the worker has failed: it ends");
        stop.cancel();
        if !taking.is_finished() {
            drop(taking.await);
        }
    }
    helpers.abort();
    if !helpers.is_finished() {
        drop(helpers.await);
    }
    drop(worker);
    drop(pulse.await);
    while committing.join_next().await.is_some() {} // ends when the last run has let go of the committer
    drop(telling.await); // and this when the last word is told
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// `secrets.<NAME>` from the settings `SECRET_<NAME>`.
struct SettingsSecrets(BTreeMap<String, Secret>);

impl Secrets for SettingsSecrets {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|secret| secret.expose().to_owned())
    }
}
