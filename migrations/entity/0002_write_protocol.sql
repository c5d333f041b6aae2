-- The write protocol's tables (docs/write-protocol.md) and what a revision is.

-- A constant default: no rewrite, no long lock, on PostgreSQL 11 and later.
ALTER TABLE entities ADD COLUMN IF NOT EXISTS tags text[] NOT NULL DEFAULT '{}';

-- What an entity was at each of its versions. Versions from before this table have no row.
CREATE TABLE entity_revisions (
    entity_id  uuid NOT NULL REFERENCES entities ON DELETE CASCADE,
    version    integer NOT NULL,
    user_id    text NOT NULL,
    title      text,
    preview    text,
    tags       text[] NOT NULL,
    file_url   text,
    file_path  text,
    file_size  bigint,
    file_type  text,
    checksum   text,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (entity_id, version)
);

-- One row is intent, journal, outbox and idempotency record of one write.
CREATE TABLE write_operations (
    user_id         text NOT NULL,
    request_id      uuid NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('create')),
    state           text NOT NULL CHECK (state IN ('PENDING', 'COMMITTED', 'DONE', 'ABORTED')),
    -- Counts the attempts. Only the newest may commit: that is what fences a slow writer.
    epoch           bigint NOT NULL,
    -- Tells a repeated begin whose reply was lost from somebody else's.
    attempt_id      uuid NOT NULL,
    -- PENDING: when another may take over. COMMITTED: when recovery appends the event.
    lease_until     timestamptz NOT NULL,
    -- SHA-256 of what was asked for.
    fingerprint     bytea NOT NULL CHECK (length(fingerprint) = 32),
    entity_type     text NOT NULL,
    extension       text NOT NULL,
    entity_id       uuid NOT NULL,
    blob_key        text NOT NULL,
    event_id        uuid NOT NULL,
    occurred_at     timestamptz NOT NULL,
    -- Set by the pivot: which attempt won, what it made, and the event that tells of it.
    committed_epoch bigint,
    entity_version  integer,
    event_type      text,
    -- json, not jsonb: what recovery appends is what the writer appended, to the letter.
    event_data      json,
    -- How often recovery has tried to append the event.
    attempts        integer NOT NULL DEFAULT 0,
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, request_id),
    CHECK ((state IN ('COMMITTED', 'DONE')) = (committed_epoch IS NOT NULL))
) WITH (fillfactor = 70);

-- Recovery looks for leases that ran out; almost every row is DONE and not in here.
CREATE INDEX write_operations_open_idx ON write_operations (lease_until)
    WHERE state IN ('PENDING', 'COMMITTED');
-- Retention looks for old rows.
CREATE INDEX write_operations_closed_idx ON write_operations (updated_at)
    WHERE state IN ('DONE', 'ABORTED');

-- Blobs that no row will ever name. A row is made in the same transaction that gives the key up.
CREATE TABLE blob_gc (
    key        text PRIMARY KEY,
    not_before timestamptz NOT NULL,
    -- The key's writer may still be uploading until then: only a deletion after it is final.
    settled_at timestamptz NOT NULL,
    -- Whether the deletion that was handed out last will be final.
    final      boolean NOT NULL DEFAULT false
);
CREATE INDEX blob_gc_not_before_idx ON blob_gc (not_before);

-- Where bodies are written and read: one row, changed by an operator's command only.
CREATE TABLE storage_phase (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    phase      text NOT NULL CHECK (phase IN
                   ('legacy', 'dual_write', 'object_primary', 'object_only', 'legacy_dropped')),
    changed_at timestamptz NOT NULL DEFAULT now()
);

-- An installation with V0.2 rows starts in `legacy`, a new one in `dual_write`.
INSERT INTO storage_phase (phase)
SELECT CASE WHEN EXISTS (SELECT FROM entities) THEN 'legacy' ELSE 'dual_write' END;
