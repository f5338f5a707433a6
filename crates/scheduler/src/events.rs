//! Events become runs.
//!
//! Two ways in: the API writes an event to Postgres before it answers; other programs add entries to
//! the Redis stream, and those are kept in Postgres before they are acknowledged. From there on there
//! is one way: an event without `consumed_at` is matched against the tasks that wait for it, and its
//! runs and `consumed_at` are written in one transaction. So nothing is lost or doubled, whoever dies
//! when; the stream only makes it fast.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use orchestrator_boot::{Context, Outage, in_time};
use orchestrator_engine::id::{self, EventId, RunId};
use orchestrator_engine::pipeline::expr::too_much;
use orchestrator_engine::run::Trigger;
use orchestrator_engine::schedule::{check_event_key, check_topic, topic_matches};
use orchestrator_engine::store::event::{self, Event, NewEvent, Started, Subscription};
use orchestrator_engine::store::queue::{self, NewWork};
use orchestrator_engine::store::{StoreError, reach};
use orchestrator_engine::streams::{Consumer, Entry, Lifecycle};
use orchestrator_engine::task::{Merging, TaskSpec};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The most events turned into runs in one transaction.
const BATCH: u16 = 200;
/// As many events as make more runs than this are too many for one transaction: so many are made in about a
/// second. A single event is never too many.
const RUNS_MAX: usize = 10_000;
/// A trigger that merges takes up to three round trips; as many runs are made in that time.
const MERGED_COSTS: usize = 20;
/// The most bytes of payload that the runs of one transaction carry; a single event may have more.
const BYTES_MAX: usize = 32 << 20;
/// How often Postgres is asked for events whose hint was lost.
const POLL: Duration = Duration::from_secs(10);
/// The same while Redis is away, and before the next try to reach it.
const POLL_WITHOUT_REDIS: Duration = Duration::from_secs(1);

/// How many events are taken at once: half as many after a transaction that took too long or broke off, so that
/// one fits in the end; twice as many after one that did not, up to 200.
#[derive(Debug)]
pub struct BatchSize(AtomicU16);

impl Default for BatchSize {
    fn default() -> Self {
        Self(AtomicU16::new(BATCH))
    }
}

impl BatchSize {
    fn get(&self) -> u16 {
        self.0.load(Ordering::Relaxed)
    }

    /// What became of a transaction of `size` events tells how many are taken next.
    fn learn<T>(&self, size: u16, done: &Result<T, StoreError>) {
        let next = match done {
            Ok(_) => size.saturating_mul(2).min(BATCH),
            Err(error) if error.is_transient() => (size / 2).max(1),
            Err(_) => return,
        };
        self.0.store(next, Ordering::Relaxed);
    }
}

/// Consumes events until `stop`; tells `held` when runs were made that wait for their turn.
pub async fn run(ctx: Context, held: Arc<Notify>, stop: CancellationToken) {
    let size = BatchSize::default();
    tokio::select! {
        () = stop.cancelled() => {}
        () = async { tokio::join!(follow_stream(&ctx, &held, &size), poll(&ctx, &held, &size)); } => {}
    }
}

/// Looks for events again and again, whatever Redis says.
async fn poll(ctx: &Context, held: &Notify, size: &BatchSize) {
    let mut outage = Outage::new("consume events");
    loop {
        let pause = match consume_left(ctx, held, size).await {
            Ok(()) => {
                outage.over();
                if ctx.streams.is_up() { POLL } else { POLL_WITHOUT_REDIS }
            }
            Err(error) => outage.pause_after(&error),
        };
        tokio::time::sleep(pause).await;
    }
}

/// Usually there are none, and one question is enough.
async fn consume_left(ctx: &Context, held: &Notify, size: &BatchSize) -> Result<(), StoreError> {
    let waiting = in_time("look for events", async {
        let mut conn = reach(&ctx.pool).await?;
        event::are_waiting(&mut conn).await
    });
    if waiting.await? { consume_waiting(ctx, held, size).await } else { Ok(()) }
}

/// Reads the stream as one of the group, whenever Redis is there.
async fn follow_stream(ctx: &Context, held: &Notify, size: &BatchSize) {
    if !ctx.streams.is_configured() {
        return std::future::pending().await;
    }
    loop {
        if let Some(mut consumer) = ctx.streams.consume(ctx.process_id.to_string()).await {
            while follow_once(ctx, held, size, &mut consumer).await.is_some() {}
        }
        tokio::time::sleep(POLL_WITHOUT_REDIS).await;
    }
}

/// One read, and one look for what a dead scheduler left. `None`: Redis went away.
async fn follow_once(
    ctx: &Context,
    held: &Notify,
    size: &BatchSize,
    consumer: &mut Consumer,
) -> Option<()> {
    let fresh = consumer.read().await?;
    let left = consumer.claim_stale().await?;
    for entries in [fresh, left] {
        if entries.is_empty() {
            continue;
        }
        keep(ctx, held, size, &entries).await;
        consumer.acknowledge(&entries).await?;
    }
    consumer.trim().await
}

/// Keeps the entries' events in Postgres and makes their runs; does not return before they are kept.
async fn keep(ctx: &Context, held: &Notify, size: &BatchSize, entries: &[Entry]) {
    let events: Vec<NewEvent> = entries.iter().filter_map(|entry| foreign(ctx, entry)).collect();
    let mut outage = Outage::new("keep events of the stream");
    while let Err(error) = in_time("keep events", keep_all(ctx, &events)).await {
        let pause = outage.pause_after(&error);
        tokio::time::sleep(pause).await;
    }
    outage.over();
    if let Err(error) = consume_waiting(ctx, held, size).await {
        // They are kept; the poll makes their runs.
        tracing::debug!(error = &error as &dyn std::error::Error, "events will be consumed later");
    }
}

/// As [`keep_once`]; one that the database refuses does not take its neighbours with it, nor stops the stream.
async fn keep_all(ctx: &Context, events: &[NewEvent]) -> Result<(), StoreError> {
    match keep_once(ctx, events).await {
        Err(error) if !error.is_transient() => {}
        done => return done,
    }
    for one in events {
        match keep_once(ctx, std::slice::from_ref(one)).await {
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => tracing::error!(
                entry = one.stream_id,
                error = &error as &dyn std::error::Error,
                "an entry of orchestrator:events cannot be kept and is passed over"
            ),
            Ok(()) => {}
        }
    }
    Ok(())
}

async fn keep_once(ctx: &Context, events: &[NewEvent]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let mut conn = reach(&ctx.pool).await?;
    let kept = event::ingest(&mut conn, events).await?;
    ctx.metrics.process().events.with_label_values(&["in"]).inc_by(kept);
    Ok(())
}

/// The event of an entry that another program wrote; `None` for the API's own, which are kept
/// already, and for what is no event, which is logged and passed over.
fn foreign(ctx: &Context, entry: &Entry) -> Option<NewEvent> {
    if entry.event_id.is_some() {
        return None;
    }
    // JSON where it is JSON, otherwise the text itself. Postgres keeps no NUL.
    let payload = entry.payload.as_ref().map_or(Value::Null, |text| {
        let text = text.replace('\0', "");
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    });
    if let Some(problem) = problem_of(entry, &payload, ctx.settings.run_data_max_bytes) {
        tracing::warn!(entry = entry.id, problem, "an entry of orchestrator:events is no event");
        return None;
    }
    let received_at = ctx.clock.now();
    Some(NewEvent {
        id: EventId::new(received_at, &mut id::rng()),
        topic: entry.topic.clone().unwrap_or_default(),
        payload: without_nul(payload),
        key: entry.key.clone().filter(|key| !key.is_empty()),
        agent_id: None,
        stream_id: Some(entry.id.clone()),
        received_at,
    })
}

/// Why an entry is no event, as `POST /events` would say.
fn problem_of(entry: &Entry, payload: &Value, most: usize) -> Option<String> {
    if let Some(field) = entry.unreadable {
        return Some(format!("its field `{field}` is not UTF-8"));
    }
    let topic = match &entry.topic {
        None => Some("it has no field `topic`".to_owned()),
        Some(topic) => check_topic(topic).err(),
    };
    let payload = too_much(payload, most).map(|found| format!("its payload {}", found.told(most)));
    let key = entry.key.as_deref().filter(|key| !key.is_empty());
    let key = key.and_then(|key| check_event_key(key).err());
    topic.or(payload).or(key.map(|problem| format!("its key {problem}")))
}

fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('\0', "")),
        Value::Array(items) => items.into_iter().map(without_nul).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name.replace('\0', ""), without_nul(value)))
            .collect(),
        other => other,
    }
}

/// Turns every kept event into its runs; tells `held` when some wait for their turn.
///
/// # Errors
///
/// When the database failed; what was committed before stays.
pub async fn consume_waiting(
    ctx: &Context,
    held: &Notify,
    size: &BatchSize,
) -> Result<(), StoreError> {
    loop {
        let most = size.get();
        let done = in_time("consume events", consume_batch(ctx, held, most)).await;
        size.learn(most, &done);
        if !done? {
            return Ok(());
        }
    }
}

/// At most `most` events, in one transaction. Returns whether there may be more.
async fn consume_batch(ctx: &Context, held: &Notify, most: u16) -> Result<bool, StoreError> {
    let mut tx = ctx.pool.begin().await.map_err(StoreError::while_trying("begin to consume"))?;
    let claimed = event::claim_waiting(&mut tx, most).await?;
    if claimed.is_empty() {
        return Ok(false);
    }
    // After the claim: a run's id tells its time, and that must not be before its event's.
    let now = ctx.clock.now();
    let waiting: Vec<Waiting> =
        event::subscriptions(&mut tx).await?.into_iter().filter_map(Waiting::read).collect();
    let (events, matches) = fitting(&claimed, &waiting);
    let more = claimed.len() == usize::from(most) || events.len() < claimed.len();
    let mut merging: Vec<_> = matches.iter().filter(|(_, one)| one.merging.is_any()).collect();
    merging.dedup_by_key(|(_, one)| one.subscription.task_id);
    if !merging.is_empty() {
        let tasks: Vec<_> = merging.iter().map(|(_, one)| one.subscription.task_id).collect();
        queue::hold_tasks(&mut tx, &tasks).await?;
    }
    let mut started = Vec::with_capacity(matches.len());
    let mut new = Vec::with_capacity(matches.len());
    let mut held_back = false;
    let mut note = |event_id, (task_id, agent_id), made: queue::Enqueued| {
        started.push(Started { event_id, task_id, run_id: made.run_id });
        if !made.deduplicated {
            new.push(Lifecycle {
                kind: "run.queued",
                agent_id,
                task_id: Some(task_id),
                run_id: Some(made.run_id),
                at: now,
            });
        }
    };
    // One statement for all runs that are made in any case; one after the other those that may not be.
    let (mut at_once, mut of_what) = (Vec::new(), Vec::new());
    for (event, waiting) in matches {
        let work = waiting.work(event, RunId::new(now, &mut id::rng()));
        held_back |= work.waits();
        let Subscription { task_id, agent_id, .. } = waiting.subscription;
        if waiting.merging.is_any() {
            let made = queue::enqueue_trigger(&mut tx, work, waiting.merging).await?;
            note(event.id, (task_id, agent_id), made);
        } else {
            at_once.push(work);
            of_what.push((event.id, (task_id, agent_id)));
        }
    }
    in_order(&mut at_once);
    for ((event, task), made) in
        of_what.into_iter().zip(queue::enqueue_batch(&mut tx, at_once).await?)
    {
        note(event, task, made);
    }
    let ids: Vec<_> = events.iter().map(|event| event.id).collect();
    event::consumed(&mut tx, &ids, &started, now).await?;
    tx.commit().await.map_err(StoreError::while_trying("commit consumed events"))?;

    ctx.metrics.scheduler().triggers.with_label_values(&["event"]).inc_by(new.len() as u64);
    if held_back {
        held.notify_one();
    }
    crate::trace::made(ctx, &new, Trigger::Event);
    if !new.is_empty() {
        ctx.streams.wake_workers().await;
        ctx.streams.lifecycle(&new).await;
    }
    Ok(more)
}

/// As many of the events as fit into one transaction, at least one, each with the tasks that wait for it.
fn fitting<'a>(
    events: &'a [Event],
    waiting: &'a [Waiting],
) -> (&'a [Event], Vec<(&'a Event, &'a Waiting)>) {
    let mut matches = Vec::new();
    let (mut cost, mut bytes) = (0, 0);
    for (number, event) in events.iter().enumerate() {
        let before = matches.len();
        for one in waiting {
            if topic_matches(&one.spec.schedule_expr, &event.topic) {
                matches.push((event, one));
                cost += if one.merging.is_any() { MERGED_COSTS } else { 1 };
            }
        }
        if matches.len() > before {
            bytes += (matches.len() - before) * event.payload.to_string().len();
        }
        if number > 0 && (cost > RUNS_MAX || bytes > BYTES_MAX) {
            matches.truncate(before);
            return (&events[..number], matches);
        }
    }
    (events, matches)
}

/// What one statement puts into the queue is due at one moment, and no order is kept then; so each is due a
/// microsecond, the least there is, after the one before it.
fn in_order(work: &mut [NewWork]) {
    for (one, micros) in work.iter_mut().zip(0..) {
        one.delay += Duration::from_micros(micros);
    }
}

/// A task that waits for events, ready to be matched.
struct Waiting {
    subscription: Subscription,
    spec: TaskSpec,
    merging: Merging,
}

impl Waiting {
    fn read(subscription: Subscription) -> Option<Self> {
        match serde_json::from_value::<TaskSpec>(subscription.spec.clone()) {
            Ok(spec) => {
                let merging = spec.merging();
                Some(Self { subscription, spec, merging })
            }
            Err(error) => {
                tracing::error!(
                    task.id = %subscription.task_id,
                    error = &error as &dyn std::error::Error,
                    "a task that waits for events cannot be read"
                );
                None
            }
        }
    }

    fn work(&self, event: &Event, run_id: RunId) -> NewWork {
        let Subscription { task_id, revision, agent_id, .. } = self.subscription;
        let (of, at) = ((task_id, revision), event.received_at);
        NewWork {
            event: Some(json!({
                "id": event.id, "topic": event.topic, "payload": event.payload, "key": event.key,
                "received_at": event.received_at,
            })),
            ..NewWork::of_task(run_id, agent_id, of, &self.spec, Trigger::Event, at)
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use orchestrator_engine::id::{AgentId, TaskId};

    use super::*;

    fn events(count: usize, payload: &Value) -> Vec<Event> {
        let one = Event {
            id: EventId::new(DateTime::UNIX_EPOCH, &mut id::rng()),
            topic: "mail.new".to_owned(),
            payload: payload.clone(),
            key: None,
            agent_id: None,
            received_at: DateTime::UNIX_EPOCH,
            consumed_at: None,
        };
        vec![one; count]
    }

    fn waiting(count: usize, pattern: &str, fields: &Value) -> Vec<Waiting> {
        let mut spec = json!({
            "title": "a test", "schedule_kind": "event", "schedule_expr": pattern,
            "payload": {"pipeline": [{"id": "one", "uses": "test.echo"}]},
        });
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let one = || Subscription {
            task_id: TaskId::new(DateTime::UNIX_EPOCH, &mut id::rng()),
            agent_id: AgentId::new(DateTime::UNIX_EPOCH, &mut id::rng()),
            revision: 1,
            spec: spec.clone(),
        };
        (0..count).filter_map(|_| Waiting::read(one())).collect()
    }

    #[test]
    fn a_transaction_takes_as_many_events_as_fit_and_at_least_one() {
        let (small, large) = (json!(1), json!("x".repeat(1 << 20)));
        let (plain, single) = (json!({}), json!({"singleton": true}));
        let cases = [
            (50, 200, &small, &plain, 200, "10,000 runs"),
            (51, 200, &small, &plain, 196, "the event that would make more than 10,000"),
            (50, 200, &small, &single, 10, "triggers that merge cost 20 each"),
            (10, 200, &large, &plain, 3, "32 MiB of payload"),
            (10_001, 200, &small, &plain, 1, "never none"),
        ];
        for (tasks, count, payload, fields, fit, why) in cases {
            let (events, mut tasks) = (events(count, payload), waiting(tasks, "mail.*", fields));
            let wait = tasks.len();
            tasks.extend(waiting(100, "other.*", &json!({})));

            let (taken, matches) = fitting(&events, &tasks);

            assert_eq!((taken.len(), matches.len()), (fit, fit * wait), "{why}");
        }
    }

    #[test]
    fn after_time_outs_one_event_is_taken_in_the_end_and_after_successes_all_are_again() {
        let size = BatchSize::default();
        let mut taken = Vec::new();
        for late in [true, true, true, true, true, true, true, true, true, false, false] {
            let most = size.get();
            taken.push(most);
            size.learn(most, &if late { Err(StoreError::no_answer("consume")) } else { Ok(()) });
        }

        assert_eq!(taken, [200, 100, 50, 25, 12, 6, 3, 1, 1, 1, 2]);
        for _ in 0..8 {
            size.learn(size.get(), &Ok(()));
        }
        assert_eq!(size.get(), BATCH);
    }
}
