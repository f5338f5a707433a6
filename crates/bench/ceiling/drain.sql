-- pgbench: leases :n rows and commits; deletes them, writes as many history rows with the payload, and
-- commits.
with l as (
    update due_work set lease_owner = :client_id, lease_until = now() + interval '30 s', attempt = attempt + 1
    where id in (select id from due_work where lease_owner is null and due_at <= now()
                 order by due_at, id limit :n for update skip locked)
    returning id, task_id, payload)
select array_agg(id) as ids, length(string_agg(payload::text, '|')) as bytes from l \gset
with d as (
    delete from due_work where id = any(:ids::bigint[]) and lease_owner = :client_id
    returning id, task_id, attempt, payload)
insert into run_history select id, task_id, 1, now(), clock_timestamp(), attempt, payload from d;
