-- The feed: all events in one order, also after the database was moved to another cluster.

-- Transaction ids belong to a cluster. A dump restored into a younger one would give new events
-- lower ids than the restored ones have; so the order is (epoch, xid, pos), and every cluster that
-- the events live in has an epoch of its own. The default is a constant: an append pays nothing.
ALTER TABLE event_store.events ADD COLUMN epoch bigint NOT NULL DEFAULT 1;

CREATE TABLE event_store.epochs (
    -- After the first, the second of its beginning: two clusters restored from one dump differ, and
    -- neither takes the other's cursors for its own.
    epoch    bigint      NOT NULL PRIMARY KEY,
    -- Whose transaction ids its events have; NULL where the server does not tell.
    cluster  text,
    began_at timestamptz NOT NULL DEFAULT now()
);

-- Which cluster this is: its identifier, and its timeline, which a promoted standby and a restore
-- to a point in time change. Both may have lost the last transactions and use their ids again.
CREATE FUNCTION event_store.cluster() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN concat((SELECT system_identifier FROM pg_control_system()), '/',
                  left(pg_walfile_name(pg_current_wal_lsn()), 8));
EXCEPTION WHEN insufficient_privilege OR undefined_function THEN
    RETURN NULL;
END $$;

INSERT INTO event_store.epochs (epoch, cluster) VALUES (1, event_store.cluster());

-- The epoch of new events. Begins the next one if the cluster is another than that of the last
-- epoch, or younger than its events. Asked before anything is appended or read.
CREATE FUNCTION event_store.enter_epoch(OUT current_epoch bigint, OUT is_new boolean)
LANGUAGE plpgsql AS $$
DECLARE
    here   text := event_store.cluster();
    known  text;
    newest xid8;
BEGIN
    is_new := false;
    -- Once to see, and once more with the lock if there is something to do.
    FOR round IN 1..2 LOOP
        SELECT e.epoch, e.cluster INTO current_epoch, known
        FROM event_store.epochs AS e ORDER BY e.epoch DESC LIMIT 1;
        SELECT e.xid INTO newest
        FROM event_store.events AS e WHERE e.epoch = current_epoch
        ORDER BY e.epoch DESC, e.xid DESC, e.pos DESC LIMIT 1;
        -- What is not known is no difference.
        EXIT WHEN coalesce(here = known, true)
              AND coalesce(newest < pg_snapshot_xmax(pg_current_snapshot()), true);
        IF round = 1 THEN
            -- The number means nothing; all releases must agree on it.
            PERFORM pg_advisory_xact_lock(8391737122081071);
        ELSE
            current_epoch := greatest(current_epoch + 1,
                                      extract(epoch FROM clock_timestamp())::bigint);
            INSERT INTO event_store.epochs (epoch, cluster) VALUES (current_epoch, here);
            EXECUTE format('ALTER TABLE event_store.events ALTER COLUMN epoch SET DEFAULT %s',
                           current_epoch);
            is_new := true;
        END IF;
    END LOOP;
END $$;

-- The feed. No release has read the index that this replaces, and none that is out has so many
-- events that building it would keep writers waiting.
CREATE INDEX events_epoch_xid_pos_idx ON event_store.events (epoch, xid, pos);
DROP INDEX event_store.events_xid_pos_idx;

-- What one user did, in pages: `pos` tells events of one moment apart.
CREATE INDEX events_user_id_occurred_at_pos_idx
    ON event_store.events (user_id, occurred_at, pos);
DROP INDEX event_store.events_user_id_occurred_at_idx;

-- What belongs together. Most events have no correlation id, and they pay nothing.
CREATE INDEX events_correlation_id_idx
    ON event_store.events (correlation_id) WHERE correlation_id IS NOT NULL;

-- Reads by type have no index: it would cost every append, and who reads a type reads most of the
-- feed anyway.

-- How far the durable consumers of the feed have come.
CREATE TABLE event_store.consumers (
    name       text        NOT NULL PRIMARY KEY,
    -- Everything up to here is done.
    epoch      bigint      NOT NULL,
    xid        xid8        NOT NULL,
    pos        bigint      NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50); -- room for HOT updates: a checkpoint is all that happens here
