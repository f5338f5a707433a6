-- Runs that are in the queue but must wait for something other than time: for the run before them
-- (overlap policies), or for their turn after an outage (catch-up at a bounded rate).
--
-- Readers: worker (lease: only what is not held), scheduler (release). Writers: scheduler, worker, api.
-- Size: as many held rows as overlap and catch-up leave waiting, usually none; pace has one row a name.
-- Safe while old code runs: old workers would lease held rows; stop them before tasks with the new
-- overlap policies are made, which old code refuses.
alter table due_work
    add column held text check (held in ('overlap', 'catch_up')),
    -- One of its task's runs at a time: whoever ends it lets the next one in.
    add column serial boolean not null default false;

drop index due_work_next;
create index due_work_next on due_work (priority, run_at) where held is null;
create index due_work_held on due_work (held, priority, scheduled_at) where held is not null;

-- How far a bounded rate has been used up, shared by all schedulers.
create table pace (
    name    text        primary key,
    used_to timestamptz not null
);
insert into pace values ('catch_up', '-infinity');

-- Failures before this moment do not count towards pause_after_failures: somebody has looked at them.
alter table task add column resumed_at timestamptz;

-- What the times of stored schedules were worked out with; a program with other zone data looks at
-- every schedule once.
create table zone_data (
    only_row boolean primary key default true check (only_row),
    version  text    not null
);
