-- The next rows of early V0.3's table after a position, and who had their ids before them: the
-- ledger, V0.2's table, or an earlier row. It has no key and no constraint.
-- $1..$3 time, id and ctid of the last row; $4 rows; $5, $6 bytes of data and metadata at most;
-- $7 whether the rows are copied now
WITH batch AS MATERIALIZED (
    SELECT * FROM (
        SELECT e.*, ctid AS place, coalesce(timestamp, '-infinity') AS at,
               coalesce(id, '00000000-0000-0000-0000-000000000000') AS key_id
        FROM public.events_v2 AS e
    ) AS e
    WHERE (at, key_id, place) > ($1::timestamptz, $2::uuid, $3::tid)
    ORDER BY at, key_id, place
    LIMIT $4
),
same AS MATERIALIZED (
    SELECT id, timestamp, ctid AS place, aggregate_id, md5(to_jsonb(e)::text) AS hash
    FROM public.events_v2 AS e
    WHERE id IN (SELECT id FROM batch)
)
SELECT v.at::text AS at, v.key_id::text AS key_id, v.place::text AS place, v.id, v.user_id,
       CASE WHEN v.at >= '0001-01-01 00:00+00' AND v.at < '10000-01-01 00:00+00'
            THEN v.at END AS occurred_at,
       v.event_type,
       CASE WHEN octet_length(v.data::text) <= $5 THEN v.data::text END AS data,
       -- An object of ours, or none.
       CASE WHEN v.metadata IS NULL THEN '{}' WHEN octet_length(v.metadata::text) <= $6
            THEN v.metadata::text END AS metadata,
       v.source, v.causation_id, v.correlation_id, v.aggregate_type,
       v.aggregate_id::text AS entity,
       (known.at = v.at AND known.entity = v.aggregate_id::text AND known.whole) AS known_same
FROM batch AS v
LEFT JOIN LATERAL (
    -- A row that says anything that the stored event does not is not the same: it is kept.
    SELECT 1 AS rank, i.occurred_at AS at, i.aggregate_id::text AS entity,
           (SELECT s.user_id = v.user_id AND s.event_type = v.event_type
                   AND s.data || jsonb_build_object('entityId', i.aggregate_id)
                       = CASE jsonb_typeof(v.data) WHEN 'object'
                         THEN v.data || jsonb_build_object('entityId', i.aggregate_id) END
            FROM event_store.events AS s
            WHERE s.aggregate_type = i.aggregate_type AND s.aggregate_id = i.aggregate_id
              AND s.version = i.version AND s.occurred_at = i.occurred_at) IS TRUE AS whole
    FROM event_store.event_ids AS i WHERE i.event_id = v.id
    UNION ALL
    -- What will be stored by then; and once rows are copied, what was not, and never will be.
    SELECT 2, e.timestamp, coalesce(lower(e.data ->> 'entityId'), ''), NOT $7
    FROM public.events AS e WHERE e.id = v.id
    UNION ALL
    -- Whatever becomes of the first of two equal rows, the other is in it.
    SELECT 3, o.timestamp, o.aggregate_id::text,
           o.hash = md5((to_jsonb(v) - '{place,at,key_id}'::text[])::text)
    FROM same AS o WHERE o.id = v.id AND (o.timestamp, o.place) < (v.timestamp, v.place)
    ORDER BY rank, at
    LIMIT 1
) AS known ON true
ORDER BY v.at, v.key_id, v.place
