-- Who may call: agents, their API keys, and the short-lived tokens made from keys.
--
-- Readers: api (every request). Writers: api, cli (agent create), both rarely.
-- Size: tens of rows; tokens live an hour and are pruned.
-- Safe while old code runs: the tables are new.
create table agent (
    id          uuid        primary key,
    name        text        not null unique check (length(name) between 1 and 100),
    scopes      text[]      not null,
    created_at  timestamptz not null,
    disabled_at timestamptz
);

create table agent_key (
    id         uuid        primary key,
    agent_id   uuid        not null references agent,
    hash       bytea       not null unique check (length(hash) = 32), -- SHA-256 of 256 random bits
    hint       text        not null,                                  -- first letters, to tell keys apart
    created_at timestamptz not null,
    revoked_at timestamptz
);
create index agent_key_agent on agent_key (agent_id);

create table access_token (
    hash       bytea       primary key check (length(hash) = 32),
    key_id     uuid        not null references agent_key on delete cascade,
    expires_at timestamptz not null
);
create index access_token_expires on access_token (expires_at);
