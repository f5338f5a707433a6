-- The queue, and the record of what was done.
--
-- A run is in exactly one place: due_work (queued or running) or run (finished).
--
-- Readers: worker (lease), api (lists). Writers: scheduler and api (insert into due_work), worker
-- (lease, checkpoint, finish).
-- Size: due_work holds what is on and what is to come, tens to a million rows of about 200 B, each
-- updated once or twice and deleted. run and run_step only grow: about 400 B a run and 500 B a step,
-- in partitions of a week, of which the oldest are dropped.
-- Safe while old code runs: the tables are new.
create sequence lease_token as bigint;

create table due_work (
    run_id       uuid        primary key,
    agent_id     uuid        not null,
    task_id      uuid,                          -- null: a pipeline without a task
    revision     integer,
    priority     smallint    not null check (priority between 1 and 9),
    run_at       timestamptz not null,          -- not to be started before
    attempt      smallint    not null default 0 check (attempt >= 0), -- counted when leased
    trigger      text        not null check (trigger in
                             ('schedule', 'event', 'condition', 'run_now', 'backfill', 'run_task')),
    nominal_at   timestamptz,
    scheduled_at timestamptz not null,          -- when it was to start, before any retry
    expires_at   timestamptz,                   -- not worth starting after
    params       jsonb,                         -- given with the run, over the task's own
    event        jsonb,                         -- what an expression sees as `event`
    definition   jsonb,                         -- the payload of a run without a task
    started_at   timestamptz,                   -- first taken by a worker
    last_error   jsonb,                         -- of the attempt before
    -- The lease. None of these is in an index, so that leasing and renewing are HOT updates.
    locked_by    uuid,                          -- the worker's process
    locked_until timestamptz,
    token        bigint,                        -- who may write; a new one at every lease
    cancel_requested_at timestamptz,

    check ((locked_by is null) = (locked_until is null)),
    check ((task_id is null) = (definition is not null)),
    check ((task_id is null) = (revision is null))
) with (
    fillfactor = 70,                            -- room for the lease beside the row
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.2
);
-- The worker's question: what of this priority is due longest?
create index due_work_next on due_work (priority, run_at);
-- Is a run of this task still on? And the lists.
create index due_work_task on due_work (task_id) where task_id is not null;

-- The latest run of each dedupe key: a second one before `until` is not made.
create table dedupe (
    agent_id uuid        not null,
    key      text        not null,
    run_id   uuid        not null,
    until    timestamptz not null,
    primary key (agent_id, key)
);

create table run (
    id           uuid        not null,          -- UUIDv7: partitions by time are ranges of it
    agent_id     uuid        not null,
    task_id      uuid,
    revision     integer,
    status       text        not null check (status in ('succeeded', 'failed', 'canceled', 'expired')),
    priority     smallint    not null,
    attempt      smallint    not null,
    trigger      text        not null,
    nominal_at   timestamptz,
    scheduled_at timestamptz not null,
    started_at   timestamptz,
    finished_at  timestamptz not null,
    params       jsonb,
    event        jsonb,
    definition   jsonb,
    output       jsonb,
    error        jsonb,
    primary key (id),
    check ((status = 'failed') <= (error is not null))
) partition by range (id);
create index run_task on run (task_id, id desc);
create index run_agent on run (agent_id, id desc);
-- Failures are few and asked for often.
create index run_unhappy on run (status, id desc) where status <> 'succeeded';

create table run_step (
    run_id      uuid        not null,
    path        text        not null,
    attempt     integer     not null,
    id          text        not null,
    uses        text,
    status      text        not null check (status in ('running', 'succeeded', 'failed', 'skipped', 'canceled')),
    started_at  timestamptz not null,
    finished_at timestamptz,
    input       jsonb,
    output      jsonb,
    error       jsonb,
    primary key (run_id, path, attempt)
) partition by range (run_id);

-- Catches what no weekly partition covers, so that a write never fails for want of one.
create table run_default partition of run default;
create table run_step_default partition of run_step default;

-- The smallest UUIDv7 of an instant (RFC 9562 §5.7: 48 bits of Unix milliseconds lead).
create function uuid_at(at timestamptz) returns uuid language sql immutable strict parallel safe as $$
    select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- Makes the partitions of the weeks from `since` to `until`; returns how many were new. A week whose
-- rows already lie in the default partition is left there.
create function ensure_run_partitions(since timestamptz, until timestamptz) returns integer
language plpgsql as $$
declare
    week timestamptz := date_trunc('week', since at time zone 'UTC') at time zone 'UTC';
    made integer := 0;
    suffix text;
begin
    while week <= until loop
        suffix := to_char(week at time zone 'UTC', 'IYYY"w"IW');
        if to_regclass('run_' || suffix) is null then
            begin
                execute format('create table %I partition of run for values from (%L) to (%L)',
                    'run_' || suffix, uuid_at(week), uuid_at(week + interval '7 days'));
                execute format('create table %I partition of run_step for values from (%L) to (%L)',
                    'run_step_' || suffix, uuid_at(week), uuid_at(week + interval '7 days'));
                made := made + 1;
            exception when check_violation or duplicate_table then
                null;
            end;
        end if;
        week := week + interval '7 days';
    end loop;
    return made;
end $$;

-- Drops the weekly partitions that end before `before`, and what is as old in the default ones;
-- returns how many partitions went.
create function drop_run_partitions(before timestamptz) returns integer language plpgsql as $$
declare
    week date;
    name text;
    dropped integer := 0;
begin
    for name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent in ('run'::regclass, 'run_step'::regclass) and c.relname !~ 'default$'
    loop
        week := to_date(right(name, 7), 'IYYY"w"IW');
        if (week + 7)::timestamp at time zone 'UTC' <= before then
            execute format('drop table %I', name);
            dropped := dropped + 1;
        end if;
    end loop;
    delete from run_step_default where run_id < uuid_at(before);
    delete from run_default where id < uuid_at(before);
    return dropped;
end $$;

select ensure_run_partitions(now(), now() + interval '3 weeks');
