insert into audit_log (at, agent_id, action, object_kind, object_id, request_id)
values (now(), '00000000-0000-7000-8000-000000000001', 'task.create', 'task', gen_random_uuid()::text, 'r');
insert into idempotency (agent_id, key, request_hash, status, body, headers, created_at)
values ('00000000-0000-7000-8000-000000000001', gen_random_uuid()::text, sha256('x'), 201, '{}', '{}', now());
insert into process (id, service, host, pid, version, capacity, started_at, seen_at)
values (gen_random_uuid(), 'worker', 'old', 1, '0.0.1', 5, now(), now());
insert into tool (address, description, input_schema, timeout_seconds, source, seen_at)
values ('old.' || left(gen_random_uuid()::text, 8), 'An old tool', '{}', 30, 'builtin', now());
