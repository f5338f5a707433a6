insert into calendar (id, agent_id, name, ics, events, dates, reasons, created_at, updated_at)
values (gen_random_uuid(), '00000000-0000-7000-8000-000000000001', 'days-' || left(gen_random_uuid()::text, 8),
        'BEGIN:VCALENDAR', 1, '{2026-12-25}', '{Christmas}', now(), now());
insert into feed_token (id, agent_id, hash, hint, created_at)
values (gen_random_uuid(), '00000000-0000-7000-8000-000000000001', sha256(gen_random_uuid()::text::bytea), 'orf_', now());
