insert into due_work (task_id, payload)
select g % 1000, jsonb_build_object('seq', g, 'kind', 'bench', 'pad', repeat('x', 160))
from generate_series(1, $1::int) g
