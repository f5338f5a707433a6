-- A task that is called by hand, one with a schedule, and a paused one.
do $$
declare
    elder constant uuid := '00000000-0000-7000-8000-000000000001';
    steps constant jsonb := '{"params": {}, "pipeline": [{"id": "one", "uses": "test.echo", "with": {"n": 1}}]}';
    kind text;
    new_id uuid;
begin
    foreach kind in array array['manual', 'cron', 'interval'] loop
        new_id := gen_random_uuid();
        insert into task (id, agent_id, name, title, schedule_kind, status, revision, cursor_at, next_fire_at,
                          paused_at, pause_reason, created_at, updated_at)
        values (new_id, elder, 'old-' || left(new_id::text, 8), 'Old', kind,
                case kind when 'interval' then 'paused' else 'active' end, 1, now(),
                case kind when 'cron' then now() + interval '1 day' end,
                case kind when 'interval' then now() end, case kind when 'interval' then 'a test' end, now(), now());
        insert into task_revision (task_id, revision, spec, created_at, created_by)
        values (new_id, 1, jsonb_build_object('title', 'Old', 'schedule_kind', kind, 'schedule_expr',
                    case kind when 'cron' then '0 8 * * *' when 'interval' then 'PT1H' else '' end,
                    'timezone', 'UTC', 'payload', steps, 'priority', 5, 'max_retries', 3, 'backoff_strategy',
                    'exponential_jitter', 'timeout_seconds', 3600, 'exclude', '[]'::jsonb, 'dedupe_window_seconds', 0,
                    'policy', '{"overlap": "skip", "catch_up": "latest", "catch_up_window_seconds": 3600,
                                "jitter_seconds": 0, "dst_gap": "shift", "dst_fold": "first"}'::jsonb), now(), elder);
        insert into occurrence (task_id, nominal_at, disposition, reason, revision, decided_at)
        values (new_id, now() - interval '1 hour', 'skipped_paused', 'a test', 1, now());
    end loop;
end $$;
