-- How long the queue is and how old its oldest run, in one statement of the program. Lane by lane (an agent's runs
-- of one priority), as take_due does: runs to come are not read.
--
-- Readers: scheduler (measure). Size: none.
-- Safe while old code runs: yes.

-- Due runs that nobody holds, counted no further than p_limit; and for how many seconds the longest due has been.
create function backlog(p_limit bigint, out depth bigint, out oldest float8) language sql stable
-- By the index, whatever the planner believes of a queue whose length it learns late.
set enable_seqscan = off set enable_bitmapscan = off
as $$
    with recursive lane as (
        (select agent_id, priority from due_work where held is null
         order by agent_id, priority limit 1)
        union all
        select next.agent_id, next.priority
        from lane cross join lateral (
            select w.agent_id, w.priority from due_work w
            where w.held is null and (w.agent_id, w.priority) > (lane.agent_id, lane.priority)
            order by w.agent_id, w.priority limit 1
        ) as next
    ),
    oldest as (
        select extract(epoch from now() - min(first.run_at))::float8 as seconds
        from lane cross join lateral (
            select w.run_at from due_work w
            where w.held is null and w.agent_id = lane.agent_id and w.priority = lane.priority
              and w.run_at <= now() and w.run_id not in (select run_id from leased)
            order by w.run_at limit 1
        ) as first
    ),
    depth as (
        select count(*) as runs
        from (
            select from lane cross join lateral (
                select from due_work w
                where w.held is null and w.agent_id = lane.agent_id and w.priority = lane.priority
                  and w.run_at <= now() and w.run_id not in (select run_id from leased)
                limit p_limit
            ) as due
            limit p_limit
        ) as counted
    )
    select depth.runs, oldest.seconds from depth, oldest
$$;
