-- A week's partition stays while a run that was made in it is still in the queue: one that waits for a
-- year, or was retried by hand. Its steps would be gone when it goes on.
--
-- Reader and writer: scheduler (prune). Size: nothing new.
-- Safe while old code runs: yes, the function is called as before.
create or replace function drop_run_partitions(before timestamptz) returns integer language plpgsql as $$
declare
    name text;
    week timestamptz;
    next_week timestamptz;
    dropped integer := 0;
begin
    for name, week in
        select c.relname, to_date(right(c.relname, 7), 'IYYY"w"IW')::timestamp at time zone 'UTC'
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent in ('run'::regclass, 'run_step'::regclass) and c.relname !~ 'default$'
    loop
        next_week := week + interval '168 hours';
        continue when next_week > before;
        -- By the primary key: one look, however long the queue is.
        continue when exists (
            select from due_work where run_id >= uuid_at(week) and run_id < uuid_at(next_week));
        execute format('drop table %I', name);
        dropped := dropped + 1;
    end loop;
    delete from run_step_default s
    where s.run_id < uuid_at(before) and not exists (select from due_work w where w.run_id = s.run_id);
    delete from run_default where id < uuid_at(before);
    return dropped;
end $$;
