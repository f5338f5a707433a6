-- What a database holds, a line for each table: its name, how many rows, and a sum over them that does
-- not depend on their order. Two databases with the same lines hold the same. Knows no table by name;
-- tables that are not kept over a crash (unlogged) are no part of a backup. psql -XqAt -f
set timezone = 'UTC';
set datestyle = 'ISO, YMD';
set intervalstyle = 'iso_8601';
set extra_float_digits = 1;
set bytea_output = 'hex';
select format('fingerprint %s %s %s', c.relname, (xpath('//n/text()', d.doc))[1], (xpath('//h/text()', d.doc))[1])
from pg_class c
join pg_namespace s on s.oid = c.relnamespace
cross join lateral (select query_to_xml(format(
    'select count(*) as n, coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) as h from %s t',
    c.oid::regclass), true, false, '') as doc) as d
where c.relkind = 'r' and c.relpersistence = 'p' and s.nspname = 'public'
order by c.relname collate "C";
