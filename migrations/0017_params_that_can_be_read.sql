-- Params that come by SQL are refused where no program of ours could read them: nested deeper than 100, or with
-- a number that no double holds. `jsonb` takes both.
--
-- Readers: orchestrator.enqueue. Size: none.
-- Safe while old code runs: yes.

create or replace function check_new_params(params jsonb, declared jsonb) returns void language plpgsql stable as $$
declare
    stranger text;
    written  text;
    most     bigint;
begin
    if jsonb_typeof(params) <> 'object' then
        raise invalid_parameter_value using
            message = format('params must be an object, not of type %s', jsonb_typeof(params));
    end if;
    select given into stranger from jsonb_object_keys(params) as given where not declared ? given limit 1;
    if found then
        raise invalid_parameter_value using
            message = format('the task declares no parameter %s', to_json(stranger)),
            hint = format('It declares: %s.',
                          coalesce((select string_agg(name, ', ') from jsonb_object_keys(declared) as name), 'none'));
    end if;
    -- What is shorter is neither too deep nor has a number of 309 digits, and no limit is below 16 KiB.
    written := params::text;
    if octet_length(written) < 202 then
        return;
    end if;
    if params @? 'strict $.**{100 to last} ? (@.type() == "array" || @.type() == "object")' then
        raise invalid_parameter_value using message = 'params are nested deeper than 100';
    end if;
    if written ~ '[0-9]{250}[0-9]{59}' and params @? 'strict $.** ? (@.type() == "number" && (@ > 1.7976931348623157e308 || @ < -1.7976931348623157e308))' then
        raise invalid_parameter_value using
            message = 'params have a number that is too large',
            hint = 'Write it as a text.';
    end if;
    select max_bytes into most from data_limit;
    if octet_length(written) > most then
        raise program_limit_exceeded using
            message = format('params are %s bytes of JSON, more than RUN_DATA_MAX_BYTES (%s)', octet_length(written), most);
    end if;
end $$;

-- What orchestrator.enqueue takes without a second thought must be neither: a level takes eight bytes.
do $$
declare
    before constant text := 'pg_column_size(enqueue.params) <= 2048';
    source constant text := pg_get_functiondef('orchestrator.enqueue'::regproc);
begin
    if strpos(source, before) = 0 then
        raise 'orchestrator.enqueue is not the one of migration 11';
    end if;
    execute replace(source, before, 'pg_column_size(enqueue.params) < 800 and octet_length(enqueue.params::text) < 309');
end $$;
