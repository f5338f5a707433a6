-- A run that another program adds.
select orchestrator.enqueue(id::text) from task where schedule_kind = 'manual' and name is not null order by id limit 1;
update data_limit set max_bytes = max_bytes;
