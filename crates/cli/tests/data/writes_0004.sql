-- An event that nobody has looked at, and one that is consumed.
insert into event (id, topic, payload, agent_id, received_at)
values (gen_random_uuid(), 'mail.received', '{"from": "ada"}', '00000000-0000-7000-8000-000000000001', now());
insert into event (id, topic, payload, key, stream_id, received_at, consumed_at)
values (gen_random_uuid(), 'mail.received', '{"from": "ada"}', gen_random_uuid()::text, gen_random_uuid()::text, now(), now());
