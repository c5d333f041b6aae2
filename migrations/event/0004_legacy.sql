-- Taking over the events of V0.2 (public.events) and of early V0.3 (public.events_v2). The old tables
-- are only read here, and written to beside the new one by every append, until an operator renames
-- and drops them.

-- How far it is. One row, made by the first batch; every batch moves it in its own transaction.
CREATE TABLE event_store.legacy_migration (
    only_row    boolean     NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    -- A round goes through the old tables twice: it counts what each stream will get, then copies.
    round       integer     NOT NULL,
    pass        text        NOT NULL CHECK (pass IN ('survey', 'copy', 'done')),
    origin      text        NOT NULL CHECK (origin IN ('events', 'events_v2')),
    -- The last row that this pass has seen, in the order (time, id, ctid).
    position    text[]      NOT NULL,
    -- Rows of both tables when the round began, and those that this pass has seen.
    total       bigint      NOT NULL,
    seen        bigint      NOT NULL,
    -- What became of the rows of this round's copy: outcome → how many.
    outcomes    jsonb       NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT now(),
    -- When every day was last found to be the same in both stores.
    verified_at timestamptz,
    -- Since when the old tables have their new names.
    renamed_at  timestamptz
);

-- What the history of each stream still needs. Versions of history end where those of the event
-- store begin, or at the version of the entity; so it must be known how many there will be.
CREATE TABLE event_store.legacy_streams (
    aggregate_type text    NOT NULL,
    aggregate_id   uuid    NOT NULL,
    round          integer NOT NULL,
    -- Counted in this round, and not copied yet.
    pending        bigint  NOT NULL,
    -- The version of the next one; null until the first one of this round is copied.
    next_version   bigint,
    -- The lowest version of history so far: what a later round finds goes below.
    lowest_version bigint,
    PRIMARY KEY (aggregate_type, aggregate_id)
) WITH (fillfactor = 70); -- room for HOT updates

-- Rows that are no events of this store, whole, and why. They are here so that the old tables can
-- go; nothing reads them but an operator.
CREATE TABLE event_store.legacy_quarantine (
    origin   text        NOT NULL,
    -- MD5 of the row: a second round finds it here.
    row_hash uuid        NOT NULL,
    -- Not unique: events_v2 has ids twice, and some rows may have none.
    event_id uuid,
    reason   text        NOT NULL,
    data     jsonb       NOT NULL,
    kept_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (origin, row_hash)
);
CREATE INDEX legacy_quarantine_event_id_idx ON event_store.legacy_quarantine (event_id);
