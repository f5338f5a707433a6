-- Calendars that tasks name in `exclude`, and the tokens of calendar programs that read planned runs.
--
-- Readers: api, scheduler (calendar, when it compiles a schedule that names one). Writers: api, rarely.
-- Size: tens of rows; a calendar is up to 1 MiB of text and 20,000 dates, usually 20 kB and 200.
-- Safe while old code runs: the tables are new, the column has a default. Tasks that name a calendar
-- are refused by old schedulers, which pause them: bring all processes up to date before making one.
create table calendar (
    id         uuid        primary key,
    agent_id   uuid        not null references agent,
    name       text        not null check (length(name) between 1 and 100),
    ics        text        not null check (octet_length(ics) <= 1048576), -- as it was uploaded
    events     integer     not null,           -- those that exclude at least one date
    dates      date[]      not null,           -- what it excludes, in order
    reasons    text[]      not null,           -- what each date is called; empty where nobody says
    version    integer     not null default 1, -- counts every upload; the ETag
    created_at timestamptz not null,
    updated_at timestamptz not null,
    unique (agent_id, name),
    check (cardinality(dates) = cardinality(reasons))
);

create table feed_token (
    id         uuid        primary key,
    agent_id   uuid        not null references agent,
    hash       bytea       not null unique check (length(hash) = 32), -- SHA-256 of 256 random bits
    hint       text        not null,                                  -- first letters, to tell tokens apart
    created_at timestamptz not null
);
create index feed_token_agent on feed_token (agent_id);

-- Counts the replacements of calendars that the task names: a schedule compiled before is not good.
alter table task add column calendar_epoch integer not null default 0;

-- Which tasks name a calendar? Asked when it is replaced or deleted; few tasks exclude anything.
create index task_revision_exclude on task_revision using gin ((spec -> 'exclude'))
    where spec -> 'exclude' <> '[]';
