-- A queue and a history: the least that a durable scheduler writes. No idea of ours is in it, so that
-- what it reaches is what Postgres can do here.
drop table if exists due_work, run_history;
create table due_work (
    id          bigint      generated always as identity primary key,
    due_at      timestamptz not null default now(),
    task_id     int         not null,
    attempt     smallint    not null default 0,
    lease_owner int,
    lease_until timestamptz,
    payload     jsonb       not null
);
create index due_work_ready on due_work (due_at, id) where lease_owner is null;
create table run_history (
    run_id      bigint      primary key,
    task_id     int         not null,
    status      smallint    not null,
    started_at  timestamptz not null,
    finished_at timestamptz not null,
    attempt     smallint    not null,
    payload     jsonb
);
