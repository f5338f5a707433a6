-- Other programs add runs in their own transactions: orchestrator.enqueue('send-invoice', '{"order": 7}').
-- Large documents are bounded by a setting, and compressed with lz4 where the server has it. Lists of runs
-- get indexes for every filter; making them reads all runs, during which none is finished or shown: a
-- minute for some ten million.
--
-- Readers: other programs (the function), api and worker (compressed columns, as before). Writers: other
-- programs, by the function alone; every service (data_limit, when it starts with another setting).
-- Size: one row of data_limit. The index on names has an entry for each task with a name that is in force.
-- Safe while old code runs: yes. Old schedulers let runs in that were added here with a concurrency key
-- within half a minute instead of at once.

-- The largest params, event, step input or output, in bytes of JSON (RUN_DATA_MAX_BYTES): what SQL has
-- to know of the settings.
create table data_limit (
    only_row  boolean primary key default true check (only_row),
    max_bytes bigint  not null check (max_bytes > 0)
);
insert into data_limit (max_bytes) values (1048576);

-- Which task has this name, among those of all agents?
create index task_by_name on task (name) where name is not null and status <> 'canceled';

-- A UUIDv7 of the present (RFC 9562 §5.7): 48 bits of Unix milliseconds, the version, and 74 bits of a
-- random UUID with its variant.
create function new_run_id() returns uuid language sql volatile as $$
    select (lpad(to_hex(trunc(date_part('epoch', clock_timestamp()) * 1000)::bigint), 12, '0')
            || '7' || substr(gen_random_uuid()::text, 16))::uuid
$$;

-- What a task declares about letting a run of it in: the columns of due_work, but what the run waits for first.
create function run_gates(
    of_task uuid, declared jsonb, out serial boolean, out held text, out concurrency_key text,
    out concurrency_limit integer, out rate_key text, out rate_limit integer, out rate_period_seconds integer
) language sql immutable as $$
    select g.serial,
           case when g.serial then 'overlap' when g.key is not null then 'concurrency'
                when g.rate is not null then 'rate' end,
           g.key, case when g.key is not null then (declared ->> 'concurrency_limit')::integer end,
           case when g.rate is not null then coalesce('key/' || (g.rate ->> 'key'), 'task/' || of_task) end,
           (g.rate ->> 'limit')::integer, (g.rate ->> 'period_seconds')::integer
    from (select coalesce(declared #>> '{policy,overlap}' in ('queue_one', 'queue_all', 'cancel_running'), false) as serial,
                 declared ->> 'concurrency_key' as key,
                 nullif(declared -> 'rate_limit', 'null') as rate) as g
$$;

-- Refuses parameters that are no object, are not declared, or are too large.
create function check_new_params(params jsonb, declared jsonb) returns void language plpgsql stable as $$
declare
    stranger text;
    bytes    bigint;
    most     bigint;
begin
    if jsonb_typeof(params) <> 'object' then
        raise invalid_parameter_value using
            message = format('params must be an object, not of type %s', jsonb_typeof(params));
    end if;
    select given into stranger from jsonb_object_keys(params) as given where not declared ? given limit 1;
    if found then
        raise invalid_parameter_value using
            message = format('the task declares no parameter %s', to_json(stranger)),
            hint = format('It declares: %s.',
                          coalesce((select string_agg(name, ', ') from jsonb_object_keys(declared) as name), 'none'));
    end if;
    -- JSON is at most six times as long as what it is kept as, and no limit is below 16 KiB.
    if pg_column_size(params) > 2048 then
        bytes := octet_length(params::text);
        select max_bytes into most from data_limit;
        if bytes > most then
            raise program_limit_exceeded using
                message = format('params are %s bytes of JSON, more than RUN_DATA_MAX_BYTES (%s)', bytes, most);
        end if;
    end if;
end $$;

-- Does at the commit what belongs there, however long the transaction took. Workers look for what became
-- due a moment ago: a run that was added earlier is due from the commit on. And one that sleeps is woken.
create function settle_enqueued() returns trigger language plpgsql security definer as $$
begin
    if new.run_at < clock_timestamp() - interval '100 ms' then
        update due_work set run_at = clock_timestamp() where run_id = new.run_id and run_at = new.run_at;
    end if;
    if new.held is null and exists (select from sleeper) then
        perform pg_notify('orchestrator_work', '');
    end if;
    return null;
end $$;
-- The two times are the same in rows that the function made, and in few others, where it does no harm.
create constraint trigger due_work_enqueued after insert on due_work deferrable initially deferred
    for each row when (new.run_at = new.scheduled_at) execute function settle_enqueued();

-- Last of what is made by names alone: where the role is called orchestrator too, what comes behind this in
-- the same session would go in here.
create schema if not exists orchestrator;
comment on schema orchestrator is 'What other programs may call, once they are granted it.';

-- Adds a run of a task, as POST /tasks/{id}/run_now does, in the caller's transaction; returns its id, or
-- that of the run whose dedupe window is open. Whether the run is made is decided by the commit.
--
-- Errors: no_data_found (P0002), too_many_rows (P0003), object_not_in_prerequisite_state (55000: the task is
-- canceled), feature_not_supported (0A000: its triggers merge), invalid_parameter_value (22023), program_limit_exceeded (54000).
create function orchestrator.enqueue(
    task          text,                     -- id or name
    params        jsonb       default null, -- over the task's own
    priority      integer     default null, -- 1 (first) to 9; null: the task's
    run_at        timestamptz default null, -- not to be started before; null: at once
    dedupe_key    text        default null, -- null: the task's
    dedupe_window interval    default null, -- null: the task's
    expires_after interval    default null, -- null: the task's
    agent         text        default null  -- id or name of the owner, where several have a task of the name
) returns uuid language plpgsql volatile security definer as $$
declare
    moment     constant timestamptz := clock_timestamp();
    start_at   constant timestamptz := greatest(enqueue.run_at, moment);
    new_id     constant uuid := new_run_id();
    found_id   uuid;
    owner_id   uuid;
    state      text;
    in_force   integer;
    namesakes  bigint := 1;
    wanted     jsonb; -- the declaration without the payload
    declared   jsonb;
    level      integer;
    dedupes_on text;
    seconds    float8;
    holder     uuid;
    gates      record;
    awaits     text;
    is_id      constant boolean := length(enqueue.task) = 36
                   and enqueue.task ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$';
begin
    -- An ordinary run of an ordinary task needs no more than this one statement, which costs half of what
    -- all the others do. It finds nothing where anything is wrong or wants more thought.
    if is_id then
        found_id := enqueue.task;
    elsif enqueue.agent is null then
        select t.id into found_id from task t where t.name = enqueue.task and t.status <> 'canceled';
    end if;
    if enqueue.dedupe_key is null and enqueue.agent is null then
        insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger, nominal_at,
                              scheduled_at, expires_at, params, serial)
        select new_id, t.agent_id, t.id, t.revision,
               coalesce(enqueue.priority, (w.spec ->> 'priority')::integer), start_at, 'run_now',
               case when start_at > moment then start_at end, start_at,
               start_at + coalesce(enqueue.expires_after,
                   make_interval(secs => (w.spec ->> 'expires_after_seconds')::float8)),
               enqueue.params,
               w.spec #>> '{policy,overlap}' in ('queue_one', 'queue_all', 'cancel_running')
        from task t
        join task_revision r on r.task_id = t.id and r.revision = t.revision
        cross join lateral (select r.spec - 'payload' as spec offset 0) as w
        where t.id = found_id and t.status <> 'canceled'
          and (is_id or not exists (select from task o where o.name = t.name and o.status <> 'canceled'
                                    and o.id <> t.id))
          and coalesce(enqueue.priority, (w.spec ->> 'priority')::integer) between 1 and 9
          and start_at <= moment + interval '3660 days'
          and (enqueue.expires_after is null or enqueue.expires_after > interval '0')
          and w.spec ->> 'dedupe_key' is null and w.spec ->> 'concurrency_key' is null
          and w.spec ->> 'rate_limit' is null and w.spec ->> 'debounce_seconds' is null
          and (w.spec ->> 'singleton')::boolean is not true
          and (enqueue.params is null
               or jsonb_typeof(enqueue.params) = 'object' and pg_column_size(enqueue.params) <= 2048
                  and coalesce(r.spec #> '{payload,params}', '{}')
                      ?& array(select jsonb_object_keys(enqueue.params)));
        if found then
            return new_id;
        end if;
    end if;

    if is_id then
        select t.id, t.agent_id, t.status, t.revision, r.spec - 'payload',
               case when enqueue.params is not null then r.spec #> '{payload,params}' end
        into found_id, owner_id, state, in_force, wanted, declared
        from task t
        join task_revision r on r.task_id = t.id and r.revision = t.revision
        where t.id = enqueue.task::uuid
          and (enqueue.agent is null or exists (
               select from agent a where a.id = t.agent_id and enqueue.agent in (a.name, a.id::text)));
    elsif enqueue.agent is null then
        select t.id, t.agent_id, t.status, t.revision, r.spec - 'payload',
               case when enqueue.params is not null then r.spec #> '{payload,params}' end,
               (select count(*) from task o where o.name = t.name and o.status <> 'canceled')
        into found_id, owner_id, state, in_force, wanted, declared, namesakes
        from task t
        join task_revision r on r.task_id = t.id and r.revision = t.revision
        where t.name = enqueue.task and t.status <> 'canceled';
    else
        select t.id, t.agent_id, t.status, t.revision, r.spec - 'payload',
               case when enqueue.params is not null then r.spec #> '{payload,params}' end
        into found_id, owner_id, state, in_force, wanted, declared
        from agent a
        join task t on t.agent_id = a.id
        join task_revision r on r.task_id = t.id and r.revision = t.revision
        where enqueue.agent in (a.name, a.id::text) and t.name = enqueue.task and t.status <> 'canceled';
    end if;
    if not found then
        raise no_data_found using message = format('there is no task %s%s', to_json(enqueue.task),
            case when enqueue.agent is not null then format(' of an agent %s', to_json(enqueue.agent)) end);
    elsif namesakes > 1 then
        raise too_many_rows using
            message = format('several agents have a task named %s', to_json(enqueue.task)),
            hint = 'Name the owner (agent => ''…''), or pass the id of the task.';
    elsif state = 'canceled' then
        raise object_not_in_prerequisite_state using
            message = format('the task %s is canceled: it runs no more', enqueue.task);
    elsif (wanted ->> 'singleton')::boolean or wanted ->> 'debounce_seconds' is not null then
        raise feature_not_supported using
            message = format('the task %s has singleton or debounce_seconds, which SQL does not do', enqueue.task),
            hint = 'Start it by POST /tasks/{id}/run_now or by an event.';
    end if;

    level := coalesce(enqueue.priority, (wanted ->> 'priority')::integer);
    if level not between 1 and 9 then
        raise invalid_parameter_value using
            message = format('priority is %s, but must be 1 (first) to 9', level);
    elsif start_at > moment + interval '3660 days' then
        raise invalid_parameter_value using
            message = format('run_at is %s, but must be at most 3660 days ahead', start_at);
    elsif enqueue.expires_after <= interval '0' then
        raise invalid_parameter_value using
            message = format('expires_after is %s, but must be longer than nothing', enqueue.expires_after);
    end if;
    if enqueue.params is not null then
        perform check_new_params(enqueue.params, coalesce(declared, '{}'));
    end if;

    dedupes_on := coalesce(enqueue.dedupe_key, wanted ->> 'dedupe_key');
    if dedupes_on is not null then
        seconds := coalesce(date_part('epoch', enqueue.dedupe_window), (wanted ->> 'dedupe_window_seconds')::float8, 0);
        if length(dedupes_on) not between 1 and 200 then
            raise invalid_parameter_value using message = 'dedupe_key must have 1 to 200 characters';
        elsif seconds <= 0 and enqueue.dedupe_key is not null then
            raise invalid_parameter_value using
                message = 'dedupe_key needs a dedupe_window that is longer than nothing',
                hint = 'Pass dedupe_window, or give the task dedupe_window_seconds.';
        elsif seconds > 0 then
            -- Twins wait at this row until the transaction that was first has ended.
            insert into dedupe as d (agent_id, key, run_id, until)
            values (owner_id, dedupes_on, new_id, moment + make_interval(secs => seconds))
            on conflict (agent_id, key) do update set
                run_id = case when d.until <= clock_timestamp() then excluded.run_id else d.run_id end,
                until = case when d.until <= clock_timestamp() then excluded.until else d.until end
            returning d.run_id into holder;
            if holder <> new_id then
                return holder;
            end if;
        end if;
    end if;

    gates := run_gates(found_id, wanted);
    -- Overlap is a matter of the schedule's times.
    awaits := case when gates.concurrency_key is not null then 'concurrency'
                   when gates.rate_key is not null then 'rate' end;
    insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger, nominal_at,
                          scheduled_at, expires_at, params, serial, held, concurrency_key,
                          concurrency_limit, rate_key, rate_limit, rate_period_seconds)
    values (new_id, owner_id, found_id, in_force, level, start_at, 'run_now',
            case when start_at > moment then start_at end, start_at,
            start_at + coalesce(enqueue.expires_after,
                make_interval(secs => (wanted ->> 'expires_after_seconds')::float8)),
            enqueue.params, gates.serial, awaits, gates.concurrency_key, gates.concurrency_limit,
            gates.rate_key, gates.rate_limit, gates.rate_period_seconds);
    -- A run that waits for a place or its turn is let in by a scheduler, after the commit: to count here
    -- who is in would lock the key for as long as the caller's transaction takes.
    if awaits is not null then
        perform pg_notify('orchestrator_held', '');
    end if;
    return new_id;
end $$;
revoke all on function orchestrator.enqueue from public;
comment on function orchestrator.enqueue is 'Adds a run of a task in the caller''s transaction; returns its id.';

-- Both act with the rights of their owner, so whoever calls them must not decide what their names mean. And
-- weeks are made where the others are.
do $$
declare
    home name := (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
                  where c.oid = 'task'::regclass);
begin
    execute format('alter function orchestrator.enqueue set search_path = %I, pg_temp', home);
    -- Its statements are worth one plan each, whatever is left out: to plan anew costs more than they do.
    alter function orchestrator.enqueue set plan_cache_mode = force_generic_plan;
    execute format('alter function settle_enqueued set search_path = %I, pg_temp', home);
    execute format('alter function ensure_run_partitions set search_path = %I, pg_temp', home);
    execute format('alter function drop_run_partitions set search_path = %I, pg_temp', home);
end $$;

-- lz4 packs at a fraction of pglz's cost; a server built without it goes on with pglz. Partitions made
-- later take it over from their parent; rows that are there stay as they are.
do $$
declare
    place record;
begin
    for place in
        select a.attrelid::regclass as relation, a.attname
        from pg_attribute a join pg_class c on c.oid = a.attrelid
        where a.atttypid in ('jsonb'::regtype, 'json'::regtype) and a.attnum > 0 and not a.attisdropped
          and (a.attrelid in ('due_work'::regclass, 'run'::regclass, 'run_step'::regclass,
                              'event'::regclass, 'task_revision'::regclass)
               or a.attrelid in (select inhrelid from pg_inherits
                                 where inhparent in ('run'::regclass, 'run_step'::regclass)))
    loop
        execute format('alter table %s alter column %I set compression lz4', place.relation, place.attname);
    end loop;
exception when feature_not_supported then
    raise notice 'this server has no lz4: pglz goes on';
end $$;

-- Lists of runs that stay fast: a page by any filter reads about as many rows as it has. With `id` the
-- other way round than before, rows are added at the ends of pages: the indexes come to two thirds of
-- their size, which pays for the new ones.
drop index if exists run_task, run_agent, run_unhappy;
create index run_task on run (task_id, id);
create index run_agent on run (agent_id, id);
-- Failures are few and asked for often: of all agents, of one, of one task.
create index run_unhappy on run (status, id) where status <> 'succeeded';
create index run_agent_unhappy on run (agent_id, status, id) where status <> 'succeeded';
create index run_task_unhappy on run (task_id, status, id) where status <> 'succeeded';
create index run_trigger on run (trigger, id);
-- Runs made long before they were to start (the time was asked for, or jittered) or perhaps long after.
create index run_apart on run (scheduled_at, id)
    where coalesce(started_at, finished_at) - scheduled_at > interval '30 s'
       or scheduled_at - nominal_at > interval '30 s'
       or (trigger = 'run_now' and nominal_at is not null);
