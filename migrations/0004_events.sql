-- Named messages, from the API, from other programs through the Redis stream, and from runs.
--
-- Readers: scheduler (those not yet consumed), api (lists). Writers: api, scheduler.
-- Size: about 500 B an event; pruned with the runs they started.
-- Safe while old code runs: the tables are new.
create table event (
    id          uuid        primary key,
    topic       text        not null check (length(topic) between 1 and 200),
    payload     jsonb       not null,
    key         text        check (length(key) between 1 and 200), -- the sender's, against doubles
    agent_id    uuid,                        -- who published it; null: another program, by the stream
    stream_id   text        unique,          -- the entry it came in by, when it came by the stream
    received_at timestamptz not null,
    consumed_at timestamptz                  -- when its runs were made, in the same transaction
);
create unique index event_key on event (coalesce(agent_id, '00000000-0000-0000-0000-000000000000'), key)
    where key is not null;
create index event_waiting on event (id) where consumed_at is null;
create index event_topic on event (topic, id desc);

-- Which runs an event started: at most one of each task.
create table event_run (
    event_id uuid not null references event on delete cascade,
    task_id  uuid not null,
    run_id   uuid not null,
    primary key (event_id, task_id)
);
