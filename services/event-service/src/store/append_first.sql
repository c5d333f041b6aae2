-- Appends the first event of a new stream: what most appends are, in a statement that PostgreSQL
-- starts in a third of the time of append.sql. It answers one row, or none if the stream exists; an
-- event that the ledger knows violates its primary key. In both cases append.sql decides.
--
-- $1..$4   aggregate_type, aggregate_id, user_id, the stream's advisory lock
-- $5..$13  event_id, body_hash, event_type, occurred_at, data, metadata, causation_id,
--          correlation_id, source
WITH
-- The lock first, as in append.sql, and for its reasons.
moved AS (
    INSERT INTO event_store.streams (aggregate_type, aggregate_id, user_id, version)
    SELECT $1, $2, $3, 1
    WHERE (SELECT pg_advisory_xact_lock($4)) IS NOT NULL
    ON CONFLICT (aggregate_type, aggregate_id) DO NOTHING
    RETURNING version
),
ledger AS (
    INSERT INTO event_store.event_ids
        (event_id, body_hash, aggregate_type, aggregate_id, version, occurred_at)
    SELECT $5, $6, $1, $2, version, $8
    FROM moved
    RETURNING version
),
-- After the ledger, as in append.sql.
counted AS (
    INSERT INTO event_store.daily_activity AS d (user_id, day, event_type, aggregate_type, count)
    SELECT $3, ($8 AT TIME ZONE 'UTC')::date, $7, $1, 1
    FROM ledger
    ON CONFLICT (user_id, day, event_type, aggregate_type) DO UPDATE SET count = d.count + 1
)
INSERT INTO event_store.events
    (event_id, aggregate_type, aggregate_id, version, event_type, user_id, occurred_at,
     data, metadata, causation_id, correlation_id, source)
SELECT $5, $1, $2, version, $7, $3, $8, $9::jsonb, $10::jsonb, $11, $12, $13
FROM moved
RETURNING version
