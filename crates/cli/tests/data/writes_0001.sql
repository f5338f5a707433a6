-- An agent, and a key of it.
insert into agent (id, name, scopes, created_at)
values ('00000000-0000-7000-8000-000000000001', 'elder', '{admin}', now()) on conflict do nothing;
insert into agent_key (id, agent_id, hash, hint, created_at)
values (gen_random_uuid(), '00000000-0000-7000-8000-000000000001', sha256(gen_random_uuid()::text::bytea), 'orc_abcd', now());
insert into access_token (hash, key_id, expires_at)
select sha256(gen_random_uuid()::text::bytea), id, now() + interval '1 hour' from agent_key limit 1;
