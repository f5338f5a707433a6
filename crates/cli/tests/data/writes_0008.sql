-- Two runs of one concurrency key, of which one is in.
do $$
declare
    elder constant uuid := '00000000-0000-7000-8000-000000000001';
    moment constant timestamptz := clock_timestamp();
    name constant text := gen_random_uuid()::text;
    held text;
begin
    foreach held in array array[null, 'concurrency'] loop
        insert into due_work (run_id, agent_id, priority, run_at, trigger, scheduled_at, definition, held,
                              concurrency_key, concurrency_limit)
        values (overlay(gen_random_uuid()::text placing left(uuid_at(moment)::text, 13) from 1)::uuid, elder, 5, moment,
                'run_now', moment, '{"pipeline": [{"id": "one", "uses": "test.echo", "with": {"n": 1}}]}', held, name, 1);
    end loop;
end $$;
