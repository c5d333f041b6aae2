-- The next rows of V0.2's table after a position, and what the ledger knows of their ids.
-- $1..$3 time, id and ctid of the last row; $4 rows; $5 bytes of data at most; $6, $7 unused here
SELECT v.timestamp::text AS at, v.id::text AS key_id, v.place::text AS place, v.id, v.user_id,
       -- The times that google.protobuf.Timestamp has.
       CASE WHEN v.timestamp >= '0001-01-01 00:00+00' AND v.timestamp < '10000-01-01 00:00+00'
            THEN v.timestamp END AS occurred_at,
       v.type AS event_type,
       CASE WHEN octet_length(v.data::text) <= $5 THEN v.data::text END AS data,
       CASE WHEN $6::int > 0 AND $7::bool IS NOT NULL THEN '{}' END AS metadata,
       v.source, NULL::uuid AS causation_id, v.correlation_id, NULL::text AS aggregate_type,
       CASE WHEN jsonb_typeof(v.data) = 'object' THEN left(v.data ->> 'entityId', 100) END AS entity,
       (known.occurred_at = v.timestamp
        AND known.aggregate_id::text = lower(v.data ->> 'entityId')) AS known_same
FROM (SELECT e.*, ctid AS place FROM public.events AS e
      WHERE (timestamp, id, ctid) > ($1::timestamptz, $2::uuid, $3::tid)
      ORDER BY timestamp, id, ctid
      LIMIT $4) AS v
-- OFFSET 0 keeps one index probe a row: a plan made while the ledger was small would read all of it.
LEFT JOIN LATERAL (
    SELECT i.occurred_at, i.aggregate_id FROM event_store.event_ids AS i
    WHERE i.event_id = v.id OFFSET 0
) AS known ON true
ORDER BY v.timestamp, v.id, v.place
