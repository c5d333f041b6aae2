-- Appends events to streams: one statement, one round trip, one commit for the requests of many
-- callers. A request is the events of one stream. It is stored wholly or, if something is in its
-- way, not at all; the others of the statement are not concerned.
--
-- $1..$5   one element a request: aggregate_type, aggregate_id, user_id,
--          expected version (0.. exactly, -1 any, -2 the stream must exist, -3 - n exactly n or no
--          stream, which then begins after n), number of events
-- $6       the advisory locks of the streams, sorted, each once
-- $7..$17  one element an event: request (from 1), place in it (from 1), event_id, body_hash,
--          event_type, occurred_at, data, metadata, causation_id, correlation_id, source
WITH
-- Locks first, in one order for all: no two appends can deadlock. Nothing above a lock has written
-- yet, so the transaction has no xid while it waits: whoever appends later to a stream has the
-- higher xid, and the feed, ordered by (xid, pos), shows every stream in the order of versions.
request AS MATERIALIZED (
    SELECT r.*
    FROM unnest($1::text[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[]) WITH ORDINALITY
         AS r (aggregate_type, aggregate_id, user_id, expected, size, request)
    WHERE (SELECT count(pg_advisory_xact_lock(key)) FROM unnest($6::bigint[]) AS key) > 0
),
event AS MATERIALIZED (
    SELECT e.*
    FROM unnest($7::bigint[], $8::bigint[], $9::uuid[], $10::bytea[], $11::text[],
                $12::timestamptz[], $13::text[], $14::text[], $15::uuid[], $16::uuid[], $17::text[])
         AS e (request, place, event_id, body_hash, event_type,
               occurred_at, data, metadata, causation_id, correlation_id, source)
),
-- What the ledger has, as of this statement's snapshot. What is committed after it violates the
-- ledger's primary key below; then the caller tries again and sees it here.
-- OFFSET 0 keeps one index probe an event: as a join, a plan made while the table was small would
-- read all of it.
known AS MATERIALIZED (
    SELECT e.request, e.place, e.event_id,
           stored.version - e.place AS base, stored.body_hash = e.body_hash AS same
    FROM event AS e
    CROSS JOIN LATERAL (
        SELECT i.version, i.body_hash FROM event_store.event_ids AS i
        WHERE i.event_id = e.event_id OFFSET 0
    ) AS stored
),
-- Advances the heads of the streams whose expectation holds, and makes new ones. ON CONFLICT sees
-- the newest row, not the snapshot's.
moved AS (
    INSERT INTO event_store.streams AS s (aggregate_type, aggregate_id, user_id, version)
    SELECT r.aggregate_type, r.aggregate_id, r.user_id, r.size + greatest(-3 - r.expected, 0)
    FROM request AS r
    WHERE r.request NOT IN (SELECT k.request FROM known AS k)
      AND (r.expected IN (0, -1) OR r.expected < -3
           -- An expectation that needs a stream must not make one. Streams are never deleted.
           OR (SELECT true FROM event_store.streams AS o
               WHERE o.aggregate_type = r.aggregate_type AND o.aggregate_id = r.aggregate_id))
    ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE
    SET version = (SELECT s.version + r.size FROM request AS r
                   WHERE r.aggregate_type = s.aggregate_type AND r.aggregate_id = s.aggregate_id)
    WHERE s.user_id = excluded.user_id
      AND (SELECT r.expected IN (s.version, -1, -2, -3 - s.version) FROM request AS r
           WHERE r.aggregate_type = s.aggregate_type AND r.aggregate_id = s.aggregate_id)
    RETURNING s.aggregate_type, s.aggregate_id, s.version
),
placed AS MATERIALIZED (
    SELECT r.aggregate_type, r.aggregate_id, r.user_id, m.version - r.size + e.place AS version, e.*
    FROM moved AS m
    JOIN request AS r USING (aggregate_type, aggregate_id)
    JOIN event AS e USING (request)
),
ledger AS (
    INSERT INTO event_store.event_ids
        (event_id, body_hash, aggregate_type, aggregate_id, version, occurred_at)
    SELECT event_id, body_hash, aggregate_type, aggregate_id, version, occurred_at
    FROM placed
    -- In one order for all: two appends of the same ids wait for each other, not in a circle.
    ORDER BY event_id
    RETURNING event_id
),
-- How many of each kind, for each user and day: counted up after the ledger has taken the events, and
-- in one order for all, so that nobody waits in a circle.
counted AS (
    INSERT INTO event_store.daily_activity AS d (user_id, day, event_type, aggregate_type, count)
    SELECT user_id, (occurred_at AT TIME ZONE 'UTC')::date, event_type, aggregate_type, count(*)
    FROM placed
    WHERE (SELECT count(*) FROM ledger) > 0
    GROUP BY 1, 2, 3, 4
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (user_id, day, event_type, aggregate_type) DO UPDATE
    SET count = d.count + excluded.count
),
stored AS (
    INSERT INTO event_store.events
        (event_id, aggregate_type, aggregate_id, version, event_type, user_id, occurred_at,
         data, metadata, causation_id, correlation_id, source)
    SELECT event_id, aggregate_type, aggregate_id, version, event_type, user_id, occurred_at,
           data::jsonb, metadata::jsonb, causation_id, correlation_id, source
    FROM placed
    ORDER BY request, place
)
-- One row a request, in their order. `last_version` if it was appended now; `known` and what
-- follows if the ledger had events of it; neither if the stream was in the way.
SELECT m.version AS last_version,
       k.known,
       -- All of it is known, with the same bodies, as one run of versions.
       k.known = r.size AND k.same AND k.low = k.high AS repeated,
       k.low AS base,
       k.other
FROM request AS r
LEFT JOIN moved AS m USING (aggregate_type, aggregate_id)
LEFT JOIN (
    SELECT request, count(*) AS known, bool_and(same) AS same, min(base) AS low, max(base) AS high,
           (array_agg(event_id ORDER BY same, place))[1] AS other
    FROM known
    GROUP BY request
) AS k USING (request)
ORDER BY r.request
