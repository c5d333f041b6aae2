-- One day (UTC) of both stores. A row's hash is over what V0.2 kept of an event, the entity's id
-- among it; what of events_v2 was migrated was never in V0.2's table.
-- $1 the day
WITH legacy AS (
    SELECT v.id, q.event_id IS NOT NULL AS quarantined,
           md5(concat_ws(' ', v.user_id, v.timestamp AT TIME ZONE 'UTC', v.type,
                         CASE jsonb_typeof(v.data) WHEN 'object' THEN v.data
                             || jsonb_build_object('entityId', lower(v.data ->> 'entityId'))
                             ELSE v.data END,
                         coalesce(nullif(v.source, ''), 'api'), v.correlation_id)) AS hash
    FROM public.events AS v
    LEFT JOIN event_store.legacy_quarantine AS q ON q.event_id = v.id AND q.origin = 'events'
    WHERE v.timestamp >= $1::timestamp AT TIME ZONE 'UTC'
      AND v.timestamp < ($1::timestamp + interval '1 day') AT TIME ZONE 'UTC'
),
stored AS (
    SELECT event_id,
           md5(concat_ws(' ', user_id, occurred_at AT TIME ZONE 'UTC', event_type,
                         data || jsonb_build_object('entityId', aggregate_id),
                         source, correlation_id)) AS hash
    FROM event_store.events
    WHERE occurred_at >= $1::timestamp AT TIME ZONE 'UTC'
      AND occurred_at < ($1::timestamp + interval '1 day') AT TIME ZONE 'UTC'
      AND (metadata ->> 'legacy') IS DISTINCT FROM 'events_v2'
),
both_sides AS (
    SELECT coalesce(l.id, s.event_id) AS id, l.id IS NOT NULL AS in_legacy,
           l.quarantined IS TRUE AS quarantined, s.event_id IS NOT NULL AS in_store,
           ('x' || left(l.hash, 16))::bit(64)::bigint AS legacy_hash,
           ('x' || left(s.hash, 16))::bit(64)::bigint AS hash,
           CASE WHEN l.quarantined AND s.event_id IS NULL THEN NULL
                WHEN s.event_id IS NULL THEN 'not_migrated'
                WHEN l.id IS NULL THEN 'only_in_event_store'
                WHEN l.hash <> s.hash THEN 'different' END AS kind
    FROM legacy AS l FULL JOIN stored AS s ON s.event_id = l.id
),
named AS (SELECT id, kind FROM both_sides WHERE kind IS NOT NULL ORDER BY id LIMIT 100)
SELECT $1 AS date,
       count(*) FILTER (WHERE in_legacy) AS legacy_rows,
       count(*) FILTER (WHERE quarantined) AS quarantined,
       count(*) FILTER (WHERE in_store) AS events,
       coalesce(bit_xor(legacy_hash) FILTER (WHERE NOT quarantined), 0) AS legacy_hash,
       coalesce(bit_xor(hash), 0) AS hash,
       ARRAY(SELECT id FROM named ORDER BY id) AS different,
       ARRAY(SELECT kind FROM named ORDER BY id) AS kinds
FROM both_sides
