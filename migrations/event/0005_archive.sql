-- The manifest of the archive: one row a file. Events are in the database or in files with the state
-- `archived`: the commit that makes a file readable is the one that drops the partition.
CREATE TABLE event_store.archives (
    archive_id      uuid        NOT NULL PRIMARY KEY,
    -- The partition or chunk that it was, and its range of time.
    segment         text        NOT NULL,
    begins_at       timestamptz NOT NULL,
    ends_at         timestamptz NOT NULL,
    -- The object key, written once.
    key             text        NOT NULL UNIQUE,
    -- exporting: being written and read back; what is left of a worker that died is thrown away.
    -- archived: the events are here. discarded: the blob is not needed (any more), and is deleted
    -- again and again for a day: an upload of the worker that died may still be under way.
    state           text        NOT NULL DEFAULT 'exporting'
                    CHECK (state IN ('exporting', 'archived', 'discarded')),
    changed_at      timestamptz NOT NULL DEFAULT now(),
    schema_version  int         NOT NULL,
    -- What was written and read back: rows, the hash of them all in their order, bytes of the file.
    events          bigint,
    sha256          bytea,
    bytes           bigint,
    -- What the partition took with its indexes.
    table_bytes     bigint,
    min_occurred_at timestamptz,
    max_occurred_at timestamptz,
    -- The highest place in the order of all events: a follower from before it has missed events.
    max_epoch       bigint,
    max_xid         xid8,
    CHECK (state <> 'archived' OR (events IS NOT NULL AND sha256 IS NOT NULL AND bytes IS NOT NULL))
);

-- What a read looks for.
CREATE INDEX archives_archived_idx ON event_store.archives (begins_at) WHERE state = 'archived';

-- How far retention has come: what happened before is gone, and its counts cannot be compared.
CREATE TABLE event_store.retention (
    one_row        boolean     NOT NULL PRIMARY KEY DEFAULT true CHECK (one_row),
    deleted_before timestamptz NOT NULL
);
