-- The role that postgres-exporter asks as: it reads statistics, and no data. Made where it is missing; the
-- password is set every time, so a new one takes hold with the next start.
--   psql --variable password_file=FILE --file monitoring-role.sql        (as a superuser, or with createrole)
\set ON_ERROR_STOP on
set client_min_messages = warning;
\set password `cat :password_file`
select 'create role monitoring' where not exists (select from pg_roles where rolname = 'monitoring') \gexec
alter role monitoring with login nosuperuser nocreatedb nocreaterole noreplication connection limit 5
    password :'password';
grant pg_monitor to monitoring;
-- Whatever it is asked, it does not keep others waiting for long.
alter role monitoring set statement_timeout = '10s';
alter role monitoring set lock_timeout = '1s';
alter role monitoring set default_transaction_read_only = on;
