-- A run that a worker holds which has died since, and one that it gave back.
do $$
declare
    elder constant uuid := '00000000-0000-7000-8000-000000000001';
    moment constant timestamptz := clock_timestamp();
    new_id uuid := overlay(gen_random_uuid()::text placing left(uuid_at(moment)::text, 13) from 1)::uuid;
begin
    insert into due_work (run_id, agent_id, priority, run_at, trigger, scheduled_at, started_at, lapses, definition)
    values (new_id, elder, 5, moment, 'run_now', moment, moment, 1,
            '{"pipeline": [{"id": "one", "uses": "test.echo", "with": {"n": 1}}]}');
    insert into lease (token, worker, until, made_at, run_ids)
    values (nextval('lease_token'), gen_random_uuid(), moment - interval '1 minute', moment - interval '2 minutes',
            array[new_id]);
    insert into sleeper (process_id) values (gen_random_uuid());
    perform nextval('lease_rewind');
    -- Finished in one go: its steps are in its row.
    insert into run (id, agent_id, status, priority, attempt, trigger, scheduled_at, started_at, finished_at,
                     definition, output, steps)
    values (overlay(gen_random_uuid()::text placing left(uuid_at(moment)::text, 13) from 1)::uuid, elder, 'succeeded', 5, 1,
            'run_now', moment, moment, moment, '{"pipeline": []}', '{}', '[]');
end $$;
