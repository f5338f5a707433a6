-- Batches larger than a worker's slots, and checkpoints without a row for each step.
--
-- A worker that is quick leases runs ahead of its slots, so that what a statement costs is shared by
-- hundreds of runs. A run leased ahead is not begun: should its holder be lost, that was no attempt. What
-- has effects outside is put on the list of those that are before it begins.
--
-- The steps of a run that is on are kept beside its lease, those of many runs in one row. They move to
-- run_step when the run changes hands, and into the run's own row when it ends.
--
-- Readers and writers: worker; api and scheduler read checkpoints of runs that are on.
-- Size: checkpoint has a row for each transaction that wrote some, until the lease ends: tens to hundreds.
-- Safe while old code runs: yes. Old workers lease nothing ahead and write their steps as rows.
-- What is empty now is full in a moment; and to give its pages back, all readers and writers would be locked out.
alter table due_work set (vacuum_truncate = off);
alter table lease set (vacuum_truncate = off);
alter table lease add column begun uuid[]; -- the others are leased ahead; null: all are begun
-- Identifiers hardly get smaller, and to try costs more than to store them.
alter table lease alter column run_ids set storage external, alter column begun set storage external;

create table checkpoint (
    token   bigint not null references lease on delete cascade,
    place   bigint generated always as identity, -- the order in which they were written
    records json   not null,                     -- step records, each with its run_id
    primary key (token, place)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

-- The steps of runs that are on, the last word about each attempt at each.
create view checkpointed as
    select distinct on (c.token, s.run_id, s.path, s.attempt) c.token, s.*
    from checkpoint c
    cross join lateral json_to_recordset(c.records) as s(
        run_id uuid, path text, attempt int, id text, uses text, status text, started_at timestamptz,
        finished_at timestamptz, input jsonb, output jsonb, error jsonb)
    order by c.token, s.run_id, s.path, s.attempt, s.status = 'running', c.place desc;

-- Ends those of these leases that have lapsed: their runs are free, with the attempt counted where it had
-- begun, and the steps they have done. Returns the leases that it ended; others do the rest.
create function end_lapsed(tokens bigint[]) returns bigint[] language plpgsql as $$
declare
    ended bigint[];
begin
    select array_agg(token) into ended
    from (select token from lease where token = any (tokens) and until <= clock_timestamp()
          for update skip locked) as l;
    if ended is null then
        return '{}';
    end if;
    -- In the order in which whoever ends many runs locks them.
    perform from due_work where run_id in (select unnest(run_ids) from lease where token = any (ended))
    order by run_id for update;
    update due_work w
    set lapses = w.lapses + 1,
        attempt = w.attempt + case when l.begun is null or r.run_id = any (l.begun) then 1 else 0 end,
        started_at = case when l.begun is null or r.run_id = any (l.begun)
                          then coalesce(w.started_at, l.made_at) else w.started_at end
    from lease l cross join unnest(l.run_ids) as r(run_id)
    where l.token = any (ended) and w.run_id = r.run_id;
    insert into run_step as o (run_id, path, attempt, id, uses, status, started_at, finished_at,
                               input, output, error)
    select s.run_id, s.path, s.attempt, s.id, s.uses, s.status, s.started_at, s.finished_at,
           s.input, s.output, s.error
    from checkpointed s join lease l using (token) join due_work w on w.run_id = s.run_id
    where s.token = any (ended) and s.run_id = any (l.run_ids)
    on conflict (run_id, path, attempt) do update set
        status = excluded.status, finished_at = excluded.finished_at,
        input = excluded.input, output = excluded.output, error = excluded.error
        where o.status = 'running';
    delete from lease where token = any (ended);
    perform nextval('lease_rewind');
    return ended;
end $$;

-- As before, but for leases that have lapsed, and those ahead.
drop function take_due(uuid, float8, integer, integer, float8, bigint[], bigint, bigint, boolean,
                       uuid[], smallint[], timestamptz[]);

-- Leases at most p_wanted due runs to p_worker, and says what was seen on the way.
--
-- Takers go one at a time, under a lock of this transaction; so they need no lock on any row, and the
-- tokens of leases rise in the order in which leases become visible. The answer is small on purpose: it
-- fits the socket, so a taker that hangs does not keep the lock.
--
-- Dead rows are not read again: a taker hands back what it saw the last time. p_known are the leases
-- that were live then and p_low the highest token; a lane (an agent's runs of one priority) comes with
-- the time before which nothing in it was left. A held snapshot (a backup, a forgotten transaction)
-- keeps dead rows for as long as it lasts; without this every look would wade through all of them.
--
-- A wide look goes a little further back in each lane, for the sake of transactions that committed late, and
-- finds lanes that were not known. In a steady stream only one look in many is wide: it reads again what
-- was taken meanwhile.
--
-- The first p_slots of them are begun at once; the others are leased ahead.
--
-- Order: the priorities one after the other, in each the lanes in turns, in each lane the longest due
-- first; but before all this p_aged runs that are due for longer than p_ageing seconds, whatever their priority.
create function take_due(
    p_worker uuid, p_duration float8, p_wanted integer, p_aged integer, p_ageing float8,
    p_known bigint[], p_low bigint, p_rewound bigint, p_wide boolean,
    p_agents uuid[], p_priorities smallint[], p_since timestamptz[],
    p_slots integer default null, -- null: as many as wanted
    out lease_token bigint, out leased_at timestamptz, out taken_runs uuid[],
    out next_in float8,               -- seconds until more may be taken; null: not known or never
    out live_tokens bigint[], out low_token bigint, out rewound_to bigint,
    out lane_agents uuid[], out lane_priorities smallint[], out lane_since timestamptz[]
) language plpgsql
-- One plan for ever, by the indexes: to plan anew costs more than to do it, and a plan made while the
-- queue was empty must do when it is not.
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set jit = off
as $$
declare
    -- Transactions that commit so late are still seen.
    margin constant interval := case when p_wide then '250 ms' else '0' end;
    busy uuid[];
    lapsed bigint[];
    new_agents uuid[];
    new_priorities smallint[];
    level smallint;
    lanes integer;
    missing integer;
    quota integer;
    more uuid[];
    places bigint[];
    firsts timestamptz[];
    is_full boolean;
begin
    perform pg_advisory_xact_lock(hashtext('take_due'), 0);
    leased_at := clock_timestamp();
    lane_agents := p_agents;
    lane_priorities := p_priorities;
    lane_since := p_since;
    taken_runs := '{}';

    select coalesce(array_agg(l.token), '{}'), array_agg(l.token) filter (where l.until <= leased_at),
           greatest(max(l.token), p_low)
    into live_tokens, lapsed, low_token
    from (select token, until from lease where token = any (p_known)
          union all select token, until from lease where token > p_low) as l;

    if lapsed is not null then
        lapsed := end_lapsed(lapsed);
        live_tokens := array(select t from unnest(live_tokens) t where t <> all (lapsed));
    end if;

    select coalesce(array_agg(r.run_id), '{}') into busy
    from lease cross join unnest(run_ids) as r(run_id)
    where token = any (live_tokens);

    rewound_to := (select last_value from lease_rewind);
    if rewound_to <> p_rewound then
        lane_since := array_fill('1970-01-01Z'::timestamptz, array[cardinality(lane_agents)]);
    end if;

    -- Lanes not known yet lie in the gaps between those that are.
    while p_wide loop
        with known(agent, priority) as (
            select * from unnest(lane_agents, lane_priorities)
            union all values ('00000000-0000-0000-0000-000000000000'::uuid, -1::smallint),
                             ('ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid, 32767::smallint)
        ),
        gap as (
            select agent, priority, lead(agent) over w as next_agent, lead(priority) over w as next_priority
            from known window w as (order by agent, priority)
        )
        select array_agg(f.agent_id), array_agg(f.priority) into new_agents, new_priorities
        from gap cross join lateral (
            select w.agent_id, w.priority from due_work w
            where w.held is null and (w.agent_id, w.priority) > (gap.agent, gap.priority)
              and (w.agent_id, w.priority) < (gap.next_agent, gap.next_priority)
            order by w.agent_id, w.priority limit 1
        ) as f;
        exit when new_agents is null;
        lane_agents := lane_agents || new_agents;
        lane_priorities := lane_priorities || new_priorities;
        lane_since := lane_since || array_fill('1970-01-01Z'::timestamptz, array[cardinality(new_agents)]);
    end loop;

    if p_aged > 0 then
        select coalesce(array_agg(a.run_id), '{}') into taken_runs
        from (
            select c.run_id
            from unnest(lane_agents, lane_priorities, lane_since) as l(agent, priority, since)
            cross join lateral (
                select w.run_id, w.run_at from due_work w
                where w.held is null and w.agent_id = l.agent and w.priority = l.priority
                  and w.run_at >= l.since - margin and w.run_at <= leased_at - make_interval(secs => p_ageing)
                  and w.run_id not in (select b from unnest(busy) as b) -- hashed, unlike <> all (busy)
                order by w.run_at limit least(p_aged, p_wanted)
            ) as c
            order by c.run_at limit least(p_aged, p_wanted)
        ) as a;
        busy := busy || taken_runs;
    end if;

    for level, lanes in select p, count(*) from unnest(lane_priorities) as p group by p order by p loop
        for pass in 1..2 loop
            missing := p_wanted - cardinality(taken_runs);
            exit when missing <= 0;
            -- First each lane its share; then whoever has more takes what others left.
            quota := case when pass = 1 then (missing + lanes - 1) / lanes else missing end;
            with c as materialized (
                select l.place, f.run_id, f.run_at,
                       row_number() over (partition by l.place order by f.run_at) as turn
                from unnest(lane_agents, lane_priorities, lane_since) with ordinality
                     as l(agent, priority, since, place)
                left join lateral (
                    select w.run_id, w.run_at from due_work w
                    where w.held is null and w.agent_id = l.agent and w.priority = l.priority
                      and w.run_at >= l.since - margin and w.run_at <= leased_at and w.run_id not in (select b from unnest(busy) as b)
                    order by w.run_at limit quota
                ) as f on true
                where l.priority = level
            ),
            lane as (select place, min(run_at) as first, count(run_id) as size from c group by place)
            select (select array_agg(c.run_id order by c.turn, c.place) from c where c.run_id is not null),
                   (select array_agg(place order by place) from lane),
                   (select array_agg(first order by place) from lane),
                   (select bool_or(size >= quota) from lane)
            into more, places, firsts, is_full;
            if pass = 1 then
                for i in 1..cardinality(places) loop
                    lane_since[places[i]] := coalesce(firsts[i], leased_at);
                end loop;
            end if;
            taken_runs := taken_runs || more[1:missing];
            busy := busy || more[1:missing];
            exit when lanes = 1 or not is_full;
        end loop;
        exit when cardinality(taken_runs) >= p_wanted;
    end loop;

    if cardinality(taken_runs) < p_wanted then
        select extract(epoch from
                   least(min(n.run_at), (select min(until) from lease where token = any (live_tokens)))
                   - leased_at)::float8
        into next_in
        from unnest(lane_agents, lane_priorities) as l(agent, priority)
        cross join lateral (
            select w.run_at from due_work w
            where w.held is null and w.agent_id = l.agent and w.priority = l.priority
              and w.run_at > leased_at
            order by w.run_at limit 1
        ) as n;
    end if;

    if cardinality(taken_runs) > 0 then
        lease_token := nextval('lease_token');
        insert into lease (token, worker, until, made_at, run_ids, begun)
        values (lease_token, p_worker, leased_at + make_interval(secs => p_duration), leased_at, taken_runs,
                taken_runs[:p_slots]);
        live_tokens := live_tokens || lease_token;
        low_token := lease_token;
    end if;
end $$;
