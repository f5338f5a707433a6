-- What must be true of the data of every backup, a line each with the number of exceptions. The full
-- list is asked by the program itself (/admin/invariants, crates/engine/src/store/invariant.rs); these
-- need no program, and read nothing about leases, which a restore makes void.
select 'invariant run_in_one_place ' || count(*) from due_work w join run r on r.id = w.run_id;
select 'invariant fired_has_run ' || count(*) from occurrence o
where o.disposition in ('fired', 'backfilled')
  and o.decided_at > (select max(decided_at) - interval '7 days' from occurrence)
  and not exists (select from due_work w where w.run_id = o.run_id)
  and not exists (select from run r where r.id = o.run_id);
select 'invariant past_times_decided ' || count(*) from task
where status = 'active' and next_fire_at is null and schedule_kind in ('cron', 'rrule', 'interval', 'once');
select 'invariant step_has_run ' || count(*) from run_step s
where not exists (select from due_work w where w.run_id = s.run_id)
  and not exists (select from run r where r.id = s.run_id);
select 'invariant consumed_event_once ' || count(*) from event_run e join event v on v.id = e.event_id
where v.consumed_at is null;
select 'invariant task_has_revision ' || count(*) from task t
where not exists (select from task_revision r where r.task_id = t.id);
select 'schema ' || coalesce(max(version), 0) from _sqlx_migrations where success;
