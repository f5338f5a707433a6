-- Partitions of runs and of their steps are made and dropped in transactions of their own. One that holds both
-- tables exclusively, one after the other, and somebody who reads both the other way round, would wait for each
-- other in a circle.
--
-- Readers and writers: scheduler (prune). Size: none.
-- Safe while old code runs: yes; ensure_run_partitions and drop_run_partitions, which it calls, do both tables.

-- Makes the weekly partitions of `run` or `run_step` from the week of `since` to that of `until`; returns how many.
create function ensure_partitions(of_table text, since timestamptz, until timestamptz) returns integer
language plpgsql as $$
declare
    week timestamptz := date_trunc('week', since at time zone 'UTC') at time zone 'UTC';
    made integer := 0;
    name text;
begin
    while week <= until loop
        name := of_table || '_' || to_char(week at time zone 'UTC', 'IYYY"w"IW');
        if to_regclass(name) is null then
            begin
                execute format('create table %I partition of %I for values from (%L) to (%L)',
                    name, of_table, uuid_at(week), uuid_at(week + interval '7 days'));
                made := made + 1;
            exception when check_violation or duplicate_table then
                null; -- the default partition has rows of that week already: they stay there
            end;
        end if;
        week := week + interval '7 days';
    end loop;
    return made;
end $$;

-- Drops the weekly partitions of one of the two that end before `before`, and what is as old in its default one;
-- returns how many partitions went. Those that hold what a queued run has done are kept.
create function drop_partitions(of_table text, before timestamptz) returns integer language plpgsql as $$
declare
    id_column constant text := case of_table when 'run' then 'id' else 'run_id' end;
    name text;
    week timestamptz;
    dropped integer := 0;
begin
    for name, week in
        select c.relname, to_date(right(c.relname, 7), 'IYYY"w"IW')::timestamp at time zone 'UTC'
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = of_table::regclass and c.relname !~ 'default$'
    loop
        continue when week + interval '168 hours' > before;
        -- By the primary key: one look, however long the queue is.
        continue when exists (
            select from due_work where run_id >= uuid_at(week) and run_id < uuid_at(week + interval '168 hours'));
        execute format('drop table %I', name);
        dropped := dropped + 1;
    end loop;
    execute format('delete from %I as old where old.%I < uuid_at($1)
                    and not exists (select from due_work w where w.run_id = old.%2$I)',
                   of_table || '_default', id_column) using before;
    return dropped;
end $$;

create or replace function ensure_run_partitions(since timestamptz, until timestamptz) returns integer language sql as $$
    select greatest(ensure_partitions('run', since, until), ensure_partitions('run_step', since, until))
$$;

create or replace function drop_run_partitions(before timestamptz) returns integer language sql as $$
    select drop_partitions('run_step', before) + drop_partitions('run', before)
$$;

-- Weeks are made where the others are, whatever the role is called (0011).
do $$
declare
    home name := (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
                  where c.oid = 'task'::regclass);
    called text;
begin
    foreach called in array array['ensure_partitions', 'drop_partitions', 'ensure_run_partitions', 'drop_run_partitions'] loop
        execute format('alter function %I set search_path = %I, pg_temp', called, home);
    end loop;
end $$;
