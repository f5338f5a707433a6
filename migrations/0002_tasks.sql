-- What agents declared, every version of it, and what became of each nominal time.
--
-- Readers: api, scheduler (task by next_fire_at), worker (task_revision).
-- Writers: api (task, task_revision), scheduler (next_fire_at, cursor_at, fires; occurrence).
-- Size: up to a million tasks of about 300 B and as many revisions of about 2 kB; an occurrence is
-- about 120 B and there is one for each nominal time.
-- Safe while old code runs: the tables are new.
create table task (
    id             uuid        primary key,
    agent_id       uuid        not null references agent,
    name           text,
    title          text        not null,
    schedule_kind  text        not null check (schedule_kind in
                               ('cron', 'rrule', 'interval', 'once', 'event', 'condition', 'manual')),
    status         text        not null check (status in ('active', 'paused', 'completed', 'canceled')),
    revision       integer     not null,           -- the one in force
    version        integer     not null default 1, -- counts every change by a caller; the ETag
    cursor_at      timestamptz not null,           -- every nominal time up to here has its disposition
    next_fire_at   timestamptz,                    -- when the scheduler must look at it; null: never
    snoozed_until  timestamptz,                    -- nothing is fired before this
    fires          integer     not null default 0, -- counts towards max_fires
    paused_at      timestamptz,
    paused_by      uuid        references agent,
    pause_reason   text,
    created_at     timestamptz not null,
    updated_at     timestamptz not null,

    check ((status = 'paused') = (paused_at is not null)),
    check (status = 'active' or next_fire_at is null)
) with (fillfactor = 80);

-- The scheduler's two questions: what is due, and when is the next one?
create index task_due on task (next_fire_at) where next_fire_at is not null;
-- A name is free again once its task is canceled.
create unique index task_name on task (agent_id, name) where status <> 'canceled';
create index task_agent on task (agent_id, id);
-- Tasks that wait for events; few, and read whole for every batch of events.
create index task_event on task (id) where schedule_kind = 'event' and status = 'active';

create table task_revision (
    task_id    uuid        not null references task,
    revision   integer     not null,
    spec       jsonb       not null, -- the whole task as declared, every default written out
    created_at timestamptz not null,
    created_by uuid        not null references agent,
    primary key (task_id, revision)
);

create table occurrence (
    task_id     uuid        not null, -- no foreign key: written by the thousand in the firing transaction
    nominal_at  timestamptz not null,
    disposition text        not null check (disposition in
                            ('fired', 'coalesced', 'backfilled', 'skipped_overlap', 'skipped_paused',
                             'skipped_too_old', 'skipped_excluded', 'skipped_dst', 'skipped_duplicate')),
    reason      text,
    run_id      uuid,
    revision    integer     not null,
    until_at    timestamptz,                      -- the last time of a stretch kept as one row
    count       integer     not null default 1 check (count >= 1),
    decided_at  timestamptz not null,
    primary key (task_id, nominal_at),            -- no time is fired twice, by any number of schedulers
    check ((until_at is null) = (count = 1))
);
