-- Stores old events with the versions that were found for them. The locks of their streams are held.
--
-- $1..$6   one element a stream: aggregate_type, aggregate_id, user_id, the version of its head if it
--          has none, what is still pending, the next version
-- $7..$19  one element an event, in the order of time: aggregate_type, aggregate_id, version,
--          user_id, event_id, body_hash, event_type, occurred_at, data, metadata, causation_id,
--          correlation_id, source
WITH
stream AS (
    SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
        AS s (aggregate_type, aggregate_id, user_id, head, pending, next_version)
),
event AS MATERIALIZED (
    SELECT * FROM unnest($7::text[], $8::uuid[], $9::bigint[], $10::text[], $11::uuid[],
                         $12::bytea[], $13::text[], $14::timestamptz[], $15::text[], $16::text[],
                         $17::uuid[], $18::uuid[], $19::text[]) WITH ORDINALITY
        AS e (aggregate_type, aggregate_id, version, user_id, event_id, body_hash, event_type,
              occurred_at, data, metadata, causation_id, correlation_id, source, place)
),
-- A stream that nobody has appended to gets its head at the entity's version: the next append goes
-- on from there.
head AS (
    INSERT INTO event_store.streams (aggregate_type, aggregate_id, user_id, version)
    SELECT aggregate_type, aggregate_id, user_id, head FROM stream
    ON CONFLICT (aggregate_type, aggregate_id) DO NOTHING
),
progress AS (
    UPDATE event_store.legacy_streams AS l
    SET pending = s.pending, next_version = s.next_version,
        lowest_version = least(l.lowest_version, e.lowest)
    FROM stream AS s
    LEFT JOIN (SELECT aggregate_type, aggregate_id, min(version) AS lowest FROM event GROUP BY 1, 2)
        AS e USING (aggregate_type, aggregate_id)
    WHERE l.aggregate_type = s.aggregate_type AND l.aggregate_id = s.aggregate_id
),
ledger AS (
    INSERT INTO event_store.event_ids
        (event_id, body_hash, aggregate_type, aggregate_id, version, occurred_at)
    SELECT event_id, body_hash, aggregate_type, aggregate_id, version, occurred_at
    FROM event
    ORDER BY event_id
    RETURNING event_id
),
-- After the ledger and in one order, as in store/append.sql.
counted AS (
    INSERT INTO event_store.daily_activity AS d (user_id, day, event_type, aggregate_type, count)
    SELECT user_id, (occurred_at AT TIME ZONE 'UTC')::date, event_type, aggregate_type, count(*)
    FROM event
    WHERE (SELECT count(*) FROM ledger) > 0
    GROUP BY 1, 2, 3, 4
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (user_id, day, event_type, aggregate_type) DO UPDATE
    SET count = d.count + excluded.count
)
INSERT INTO event_store.events
    (event_id, aggregate_type, aggregate_id, version, event_type, user_id, occurred_at,
     data, metadata, causation_id, correlation_id, source)
SELECT event_id, aggregate_type, aggregate_id, version, event_type, user_id, occurred_at,
       data::jsonb, metadata::jsonb, causation_id, correlation_id, source
FROM event
ORDER BY place
