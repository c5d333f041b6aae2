-- The epoch of new events, as in 0003. But the newest transaction id that the store knows may be that
-- of events which are archived, or of a consumer's checkpoint: both would be ahead of new events in a
-- cluster that is younger and cannot be told from the old one.
CREATE OR REPLACE FUNCTION event_store.enter_epoch(OUT current_epoch bigint, OUT is_new boolean)
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
        SELECT places.xid INTO newest
        FROM (
            (SELECT e.xid FROM event_store.events AS e WHERE e.epoch = current_epoch
             ORDER BY e.epoch DESC, e.xid DESC, e.pos DESC LIMIT 1)
            UNION ALL
            SELECT a.max_xid FROM event_store.archives AS a WHERE a.max_epoch = current_epoch
            UNION ALL
            SELECT c.xid FROM event_store.consumers AS c WHERE c.epoch = current_epoch
        ) AS places (xid)
        ORDER BY places.xid DESC LIMIT 1;
        -- What is not known is no difference. A checkpoint is saved by a transaction whose id is not
        -- below it: where it can be seen, it is below all that are to come.
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
