-- Runs of one task that go one at a time: one is in, one waits; and one that was missed waits for its turn.
do $$
declare
    elder constant uuid := '00000000-0000-7000-8000-000000000001';
    moment constant timestamptz := clock_timestamp();
    of_task constant uuid := gen_random_uuid();
    held text;
begin
    insert into task (id, agent_id, title, schedule_kind, status, revision, cursor_at, created_at, updated_at)
    values (of_task, elder, 'One at a time', 'manual', 'active', 1, now(), now(), now());
    insert into task_revision (task_id, revision, spec, created_at, created_by)
    values (of_task, 1, '{"title": "One at a time", "schedule_kind": "manual", "schedule_expr": "",
        "payload": {"pipeline": [{"id": "one", "uses": "test.echo", "with": {"n": 1}}]}}', now(), elder);
    foreach held in array array[null, 'overlap', 'catch_up'] loop
        insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger, scheduled_at, held, serial)
        values (overlay(gen_random_uuid()::text placing left(uuid_at(moment)::text, 13) from 1)::uuid, elder, of_task,
                1, 5, moment, 'schedule', moment, held, held is distinct from 'catch_up');
    end loop;
    update task set resumed_at = now() where id = of_task;
    insert into zone_data (version) values ('2025b') on conflict do nothing;
end $$;
