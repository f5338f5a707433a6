-- What the api asks at every request, as functions whose plans are kept: a statement over arrays is planned
-- anew each time, because Postgres takes an array of unknown length for a longer one than most are. For the few
-- rows that it is about, that took three times as long as to do it.
--
-- Readers and writers: api. Size: nothing new.
-- Safe while old code runs: yes, it does not know the functions.

-- Who each secret belongs to, by its hash: a key, or a token that is good at p_now. Nothing for those that are
-- unknown, revoked or expired, or whose agent is disabled.
create function recognise(
    p_hashes bytea[], p_now timestamptz,
    out place bigint, out agent_id uuid, out name text, out scopes text[], out key_id uuid
) returns setof record language plpgsql stable
-- As of take_due: one plan for ever, by the indexes.
set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off
as $$
begin
    return query
    select given.place, a.id, a.name, a.scopes, k.id
    from unnest(p_hashes) with ordinality as given(hash, place)
    join agent_key k on k.id = coalesce(
            (select found.id from agent_key found where found.hash = given.hash),
            (select t.key_id from access_token t where t.hash = given.hash and t.expires_at > p_now))
    join agent a on a.id = k.agent_id
    where k.revoked_at is null and a.disabled_at is null;
end $$;

-- Looks up the tasks that p_ids or p_names name (those of p_owners; null: of anybody), and puts the run of each
-- into the queue, with the record of who asked for it, that is still at the revision which the run is of and not
-- canceled. Runs come with the place of their task among the names, from 1; they are due at once. The answer has
-- a row for each task that a place may mean.
--
-- The tasks are locked in the order of their ids, so that two who name several of the same wait for each other in
-- one direction. What a statement that changes a task leaves behind is what is looked at here, and the present
-- begins behind that wait: workers look for what became due a moment ago.
create function enqueue_called(
    p_ids uuid[], p_names text[], p_owners uuid[],
    p_places bigint[], p_runs uuid[], p_tasks uuid[], p_revisions int[], p_priorities smallint[],
    p_scheduled timestamptz[], p_expire_after float8[], p_params jsonb[], p_serial bool[], p_held text[],
    p_concurrency_keys text[], p_concurrency_limits int[], p_rate_keys text[], p_rate_limits int[],
    p_rate_periods int[], p_callers uuid[], p_requests text[], p_details jsonb[],
    out place bigint, out id uuid, out agent_id uuid, out status text, out revision int, out is_queued boolean
) returns setof record language plpgsql volatile
set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off
as $$
#variable_conflict use_column
begin
    return query
    with found as (
        select n.place, task.id
        from unnest(p_ids, p_names, p_owners) with ordinality as n(id, name, owner, place)
        cross join lateral (
            select t.id from task t
            where t.id = n.id and (n.owner is null or t.agent_id = n.owner)
            union all
            (select t.id from task t
             where n.id is null and t.name = n.name and t.status <> 'canceled'
               and (n.owner is null or t.agent_id = n.owner)
             limit 2)
        ) as task
    ),
    held as materialized (
        select found.place, t.id, t.agent_id, t.status, t.revision
        from found join task t on t.id = found.id
        order by t.id
        for key share of t
    ),
    asked as materialized (
        select w.*, held.agent_id, clock_timestamp() as now
        from unnest(p_places, p_runs, p_tasks, p_revisions, p_priorities, p_scheduled, p_expire_after,
                    p_params, p_serial, p_held, p_concurrency_keys, p_concurrency_limits, p_rate_keys,
                    p_rate_limits, p_rate_periods, p_callers, p_requests, p_details)
             as w(place, run_id, task_id, revision, priority, scheduled_at, expire_after, params, serial,
                  held, concurrency_key, concurrency_limit, rate_key, rate_limit, rate_period_seconds,
                  caller, request_id, detail)
        join held on held.place = w.place and held.id = w.task_id
                 and held.revision = w.revision and held.status <> 'canceled'
        where not exists (select from held as twin where twin.place = w.place and twin.id <> w.task_id)
    ),
    queued as (
        insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger,
                              scheduled_at, expires_at, params, serial, held, concurrency_key,
                              concurrency_limit, rate_key, rate_limit, rate_period_seconds)
        select run_id, agent_id, task_id, revision, priority, now, 'run_now', scheduled_at,
               now + make_interval(secs => expire_after), params, serial, held, concurrency_key,
               concurrency_limit, rate_key, rate_limit, rate_period_seconds
        from asked
    ),
    recorded as (
        insert into audit_log (at, agent_id, action, object_kind, object_id, request_id, detail)
        select scheduled_at, caller, 'task.run_now', 'task', task_id::text, request_id, detail
        from asked
    )
    select held.place, held.id, held.agent_id, held.status, held.revision, asked.run_id is not null
    from held left join asked on asked.place = held.place;
end $$;
