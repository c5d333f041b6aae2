-- One step through the feed: looks at no more than $4 events after a place, and at none that may
-- still get a neighbour before it. A transaction below the horizon, the snapshot's xmin, has ended
-- and is visible; the ids of all that are to come are at or above it. Both are of one snapshot
-- because both are in one statement. The events of earlier epochs are all there.
--
-- $1..$3   the place: epoch, xid, pos
-- $4, $5   events to look at, bytes to answer; a first event is answered however large it is
-- $6..$8   the filter: types, aggregate types, user; NULL lets everything through
WITH
horizon AS MATERIALIZED (
    SELECT (SELECT max(epoch) FROM event_store.epochs) AS epoch,
           pg_snapshot_xmin(pg_current_snapshot()) AS xid
),
seen AS MATERIALIZED (
    SELECT e.*
    FROM event_store.events AS e
    WHERE (e.epoch, e.xid, e.pos) > ($1, $2::text::xid8, $3)
      AND (e.epoch, e.xid) < ((SELECT epoch FROM horizon), (SELECT xid FROM horizon))
    ORDER BY e.epoch, e.xid, e.pos
    LIMIT $4
),
-- xid as it is sorted by and as it is read.
wanted AS (
    SELECT event_id, aggregate_type, aggregate_id, version, event_type, user_id, occurred_at,
           data::text AS data, metadata::text AS metadata, causation_id, correlation_id, source,
           epoch, xid::text::bigint AS xid, pos
    FROM seen
    WHERE ($6::text[] IS NULL OR event_type = ANY ($6))
      AND ($7::text[] IS NULL OR aggregate_type = ANY ($7))
      AND ($8::text IS NULL OR user_id = $8)
),
page AS (
    SELECT *
    FROM (
        SELECT w.*, count(*) OVER () AS found,
               coalesce(sum(octet_length(data) + octet_length(metadata)) OVER (
                   ORDER BY epoch, xid, pos
                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes
        FROM wanted AS w
    ) AS w
    WHERE bytes < $5
)
-- One row an event, or one without an event; each says where the step ended.
SELECT h.epoch AS horizon_epoch, h.xid::text::bigint AS horizon_xid,
       (SELECT count(*) FROM seen) AS seen,
       last.epoch AS last_epoch, last.xid::text::bigint AS last_xid, last.pos AS last_pos,
       p.*
FROM horizon AS h
LEFT JOIN (SELECT epoch, xid, pos FROM seen ORDER BY epoch DESC, xid DESC, pos DESC LIMIT 1) AS last
       ON true
LEFT JOIN page AS p ON true
ORDER BY p.epoch, p.xid, p.pos
