-- A look at the queue takes fewer statements: each costs an idle system, whose caches are cold, up to 0.06 ms
-- before the run may begin (0.57 ms for nine, besides what they do). Checkpoints are packed by lz4 as all other
-- documents are. And what Postgres gathers about the queue comes from a tenth of the rows: it is out of date in a
-- minute anyway, and to read them from all over a table that a held snapshot has grown costs more than anybody
-- gains by it.
--
-- Readers and writers: as before. Size: nothing new.
-- Safe while old code runs: yes, take_due is called and answers as before.
do $$
begin
    alter table checkpoint alter column records set compression lz4;
exception when feature_not_supported then
    raise notice 'this server has no lz4: pglz goes on';
end $$;

do $$
declare
    name text;
begin
    for name in select attname from pg_attribute where attrelid = 'due_work'::regclass and attnum > 0 and not attisdropped loop
        execute format('alter table due_work alter column %I set statistics 10', name);
    end loop;
end $$;

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
create or replace function take_due(
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
    levels smallint[];
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

    with seen as materialized (
        select token, until, run_ids from lease where token = any (p_known)
        union all select token, until, run_ids from lease where token > p_low
    )
    select coalesce(array_agg(s.token), '{}'), array_agg(s.token) filter (where s.until <= leased_at),
           greatest(max(s.token), p_low), array(select r.id from seen cross join unnest(run_ids) as r(id)),
           (select last_value from lease_rewind)
    into live_tokens, lapsed, low_token, busy, rewound_to
    from seen s;

    if lapsed is not null then
        lapsed := end_lapsed(lapsed);
        live_tokens := array(select t from unnest(live_tokens) t where t <> all (lapsed));
        busy := array(select r.id from lease cross join unnest(run_ids) as r(id) where token = any (live_tokens));
        rewound_to := (select last_value from lease_rewind);
    end if;

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

    if lane_priorities[1] = all (lane_priorities) then
        levels := lane_priorities[1:1];
    else
        levels := array(select distinct p from unnest(lane_priorities) as p order by p);
    end if;
    foreach level in array levels loop
        lanes := cardinality(array_positions(lane_priorities, level));
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
