-- Runs that share a concurrency key: never more than so many of them are let in at once.
--
-- Readers and writers: as of due_work. A keyed run comes into the queue held; it is let in when fewer
-- than its limit are. It keeps its place until it has ended, also between attempts.
-- Size: two columns of due_work, null for runs without a key, which no index here holds.
-- Safe while old code runs: it refuses tasks with a key, so it makes no such rows; old workers lease
-- none that are held.
alter table due_work
    add column concurrency_key text check (length(concurrency_key) between 1 and 200),
    add column concurrency_limit integer check (concurrency_limit >= 1),
    add constraint due_work_concurrency check ((concurrency_key is null) = (concurrency_limit is null)),
    drop constraint due_work_held_check,
    add constraint due_work_held_check check (held in ('overlap', 'catch_up', 'concurrency'));
-- Who of a key is next, and how many are in?
create index due_work_key on due_work (agent_id, concurrency_key, priority, scheduled_at)
    where concurrency_key is not null;
