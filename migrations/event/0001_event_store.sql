-- The event store. It has a schema of its own: `public` may hold the events of V0.2 and the
-- events_v2 of early V0.3, which stay as they are until their migration.
CREATE SCHEMA event_store;

-- The head of every stream: one row decides who may append next. Its owner is fixed by the first
-- append; an append for another user finds no stream.
CREATE TABLE event_store.streams (
    aggregate_type text   NOT NULL,
    aggregate_id   uuid   NOT NULL,
    user_id        text   NOT NULL,
    -- The version of the newest event; versions count from 1 without gaps.
    version        bigint NOT NULL CHECK (version > 0),
    PRIMARY KEY (aggregate_type, aggregate_id)
) WITH (fillfactor = 80); -- room for HOT updates: every append changes `version` only

-- The ledger: which events are stored. Not partitioned, because exactly-once holds over all time,
-- and a unique constraint of a partitioned table would have to contain the time. A row survives
-- its event when old partitions are archived and dropped.
CREATE TABLE event_store.event_ids (
    event_id       uuid        NOT NULL PRIMARY KEY,
    -- SHA-256 of the event's body (NewEvent::body_hash in event-service): tells a repeat from a reuse.
    body_hash      bytea       NOT NULL,
    -- Where the event is; with occurred_at also in which partition.
    aggregate_type text        NOT NULL,
    aggregate_id   uuid        NOT NULL,
    version        bigint      NOT NULL,
    occurred_at    timestamptz NOT NULL
);

-- A sequence of its own, not an identity: PostgreSQL's partitions and TimescaleDB's chunks can all
-- draw from it.
CREATE SEQUENCE event_store.event_pos;

-- The events, by the time at which they happened.
CREATE TABLE event_store.events (
    event_id       uuid        NOT NULL,
    aggregate_type text        NOT NULL,
    aggregate_id   uuid        NOT NULL,
    version        bigint      NOT NULL,
    event_type     text        NOT NULL,
    user_id        text        NOT NULL,
    -- Chosen by the caller and the same in every repeat, so that a repeat meets the same partition.
    occurred_at    timestamptz NOT NULL,
    data           jsonb       NOT NULL,
    metadata       jsonb       NOT NULL,
    causation_id   uuid,
    correlation_id uuid,
    source         text        NOT NULL
                   CHECK (source IN ('api', 'automation', 'sync', 'migration', 'system')),
    -- The order of all events is (xid, pos). A sequence alone commits out of order; a reader that
    -- stays below pg_snapshot_xmin(pg_current_snapshot()) misses nothing. The append takes its
    -- locks before it takes its xid, so this order never contradicts the versions of a stream.
    xid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
    pos            bigint      NOT NULL DEFAULT nextval('event_store.event_pos'),
    -- When we stored it; for people, never for order.
    recorded_at    timestamptz NOT NULL DEFAULT now(),
    -- Reads of one stream; contains the time, as partitions and hypertables ask. That a version is
    -- given once is the work of `streams`.
    PRIMARY KEY (aggregate_type, aggregate_id, version, occurred_at)
) PARTITION BY RANGE (occurred_at);

-- The only partition for now. It stays as the place for what falls outside the weekly ones.
CREATE TABLE event_store.events_default PARTITION OF event_store.events DEFAULT;

-- What one user did in a range of time.
CREATE INDEX events_user_id_occurred_at_idx ON event_store.events (user_id, occurred_at);
-- The feed.
CREATE INDEX events_xid_pos_idx ON event_store.events (xid, pos);
