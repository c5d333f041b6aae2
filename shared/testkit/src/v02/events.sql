INSERT INTO events (id, user_id, timestamp, type, data, source, correlation_id)
SELECT v.id,
       CASE v.kind WHEN 'other_user' THEN 'somebody-else' ELSE e.user_id END,
       CASE v.kind WHEN 'no_time' THEN (ARRAY['infinity', '-infinity'])[1 + v.n % 2]::timestamptz
                   ELSE v.occurred_at END,
       CASE v.kind WHEN 'odd_type' THEN (ARRAY['NoteCreated', '', 'entity updated'])[1 + v.n % 3]
                   ELSE CASE WHEN v.n = v.entity THEN 'entity.created' ELSE 'entity.updated' END END,
       CASE v.kind
           WHEN 'not_an_object' THEN (ARRAY['[1, 2]', '"text"', '7', 'null'])[1 + v.n % 4]::jsonb
           WHEN 'no_entity' THEN '{"theme": "dark"}'
           WHEN 'not_a_uuid' THEN jsonb_build_object('entityId', 'none such')
           WHEN 'names_nothing' THEN jsonb_build_object('entityId', md5('nothing ' || v.n)::uuid)
           WHEN 'upper_case' THEN jsonb_build_object('entityId', upper(e.id::text), 'n', v.n)
           WHEN 'over_long' THEN jsonb_build_object('entityId', e.id, 'content',
                                                    repeat('0123456789abcdef', 4200 + v.n::int % 7))
           WHEN 'odd_number' THEN jsonb_build_object('entityId', e.id, 'n', '1e999'::numeric)
           ELSE jsonb_build_object('entityId', e.id, 'n', v.n, 'title', 'Größe ' || v.n)
       END,
       CASE v.kind WHEN 'null_source' THEN NULL WHEN 'odd_source' THEN 'chat'
                   ELSE (ARRAY['api', 'automation', 'sync'])[1 + v.n % 3] END,
       CASE WHEN v.n % 4 = 0 THEN md5('correlation ' || v.n / 8)::uuid END
FROM event_plan AS v JOIN entity_plan AS e ON e.n = v.entity
ORDER BY v.n;
