-- What lets a run in: rates (at most so many runs of a key within any period), the merging of triggers
-- (debounce), and the end of runs that nobody began in time.
--
-- Readers and writers: as of due_work; rate_window: whoever lets runs of a rate in (scheduler, api,
-- worker), pruned by the scheduler.
-- Size: four columns of due_work, null for runs that have none of it; rate_window has one row a key, of at
-- most 1,000 instants.
-- Safe while old code runs: it refuses tasks with these fields, so it makes no such rows; it would let
-- runs that wait for a rate pass, so stop it before such tasks are made.
alter table due_work
    add column rate_key text check (length(rate_key) between 1 and 210),
    add column rate_limit integer check (rate_limit >= 1),
    add column rate_period_seconds integer check (rate_period_seconds >= 1),
    -- Triggers of its task move the run, as long as it has not begun, but not beyond this.
    add column debounce_until timestamptz,
    add constraint due_work_rate check (num_nulls(rate_key, rate_limit, rate_period_seconds) in (0, 3)),
    drop constraint due_work_held_check,
    add constraint due_work_held_check check (held in ('overlap', 'catch_up', 'concurrency', 'rate'));

-- The runs that are in a lease, also in one that has lapsed and was not swept yet. With `started_at` it says
-- what nobody has begun. Whoever moves or ends such a run locks its row first and looks here in a
-- statement of its own: a taker that leases it meanwhile waits for the lock, so one sees the other.
create view in_a_lease as
    select unnest(run_ids) as run_id from lease;

-- Who of a concurrency key is in (a run that waits for its rate has its place already), and who is next?
-- Two indexes, so that letting one in costs the same however many wait.
drop index due_work_key;
create index due_work_key_in on due_work (agent_id, concurrency_key)
    where concurrency_key is not null and (held is null or held = 'rate');
create index due_work_key_waiting on due_work (agent_id, concurrency_key, priority, scheduled_at, run_id)
    where held = 'concurrency';
create index due_work_rate_waiting on due_work (agent_id, rate_key, priority, scheduled_at, run_id)
    where held = 'rate';
-- When does the next of them come of age?
create index due_work_held_later on due_work (run_at) where held in ('concurrency', 'rate');
create index due_work_expiry on due_work (expires_at) where expires_at is not null;
create index due_work_debounce on due_work (task_id) where debounce_until is not null;

-- When the last runs of a rate were let in.
create table rate_window (
    agent_id            uuid          not null,
    key                 text          not null,
    starts              timestamptz[] not null, -- in order; the last `kept` of them
    kept                integer       not null, -- one more than the largest limit it was used with
    last_limit          integer       not null, -- what the last run was let in under
    last_period_seconds integer       not null,
    primary key (agent_id, key)
);
