-- Who did what; first answers kept for repeated requests; the processes that are alive; the tools
-- that workers offer.
--
-- Readers: api. Writers: api and cli (audit_log, idempotency), every service (process), worker (tool).
-- Size: audit_log grows by a row of 300 B a change; idempotency holds a day; process and tool are tiny.
-- Safe while old code runs: the tables are new.
create table audit_log (
    id          bigint      generated always as identity primary key,
    at          timestamptz not null,
    agent_id    uuid,                        -- null: the system itself
    action      text        not null,        -- noun.verb: task.create
    object_kind text        not null,
    object_id   text        not null,
    request_id  text,
    detail      jsonb       not null default '{}'
);
create index audit_log_object on audit_log (object_kind, object_id, id desc);
create index audit_log_agent on audit_log (agent_id, id desc);

create function audit_log_is_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'audit_log is append-only';
end $$;
create trigger audit_log_append_only before update or delete on audit_log
    for each statement execute function audit_log_is_append_only();

create table idempotency (
    agent_id     uuid        not null,
    key          text        not null check (length(key) between 1 and 255),
    request_hash bytea       not null,       -- SHA-256 of method, path and body
    status       smallint,                   -- null while the first request is at work
    body         jsonb,
    headers      jsonb,
    created_at   timestamptz not null,
    primary key (agent_id, key)
);
create index idempotency_created on idempotency (created_at);

create table process (
    id         uuid        primary key,
    service    text        not null check (service in ('api', 'scheduler', 'worker')),
    host       text        not null,
    pid        integer     not null,
    version    text        not null,
    capacity   integer     not null default 0,
    active     integer     not null default 0,
    started_at timestamptz not null,
    seen_at    timestamptz not null          -- by the database's clock
);

create table tool (
    address         text        primary key,
    description     text        not null,
    input_schema    jsonb       not null,
    output_schema   jsonb,
    timeout_seconds integer     not null,
    scope           text,
    source          text        not null,
    seen_at         timestamptz not null     -- when a worker last offered it
);
