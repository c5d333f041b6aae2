-- How much happened: one row for each user, day (UTC), type of event and of aggregate, counted up in
-- the append's own transaction. No row is everybody's, so that no two users wait for each other. It
-- outlives the events: archive and retention leave it alone.
CREATE TABLE event_store.daily_activity (
    user_id        text   NOT NULL,
    day            date   NOT NULL,
    event_type     text   NOT NULL,
    aggregate_type text   NOT NULL,
    count          bigint NOT NULL,
    -- In the order of the one question: what did this user do from day to day.
    PRIMARY KEY (user_id, day, event_type, aggregate_type)
) WITH (fillfactor = 70); -- room for HOT updates: an append changes `count` only

-- What was stored before there were rollups. Writers go on meanwhile; what a replica of the release
-- before this one appends from here on is counted by RebuildRollups.
INSERT INTO event_store.daily_activity (user_id, day, event_type, aggregate_type, count)
SELECT user_id, (occurred_at AT TIME ZONE 'UTC')::date, event_type, aggregate_type, count(*)
FROM event_store.events
GROUP BY 1, 2, 3, 4;

-- Who does the work that must not be done twice at once (partitions, archive, retention), and until
-- when. Every change that somebody else could meet is made under its lock and with its epoch: a
-- holder that was away for longer than its lease changes nothing any more.
CREATE TABLE event_store.leases (
    name       text        NOT NULL PRIMARY KEY,
    -- Counts the holders.
    epoch      bigint      NOT NULL,
    expires_at timestamptz NOT NULL
);

-- Where there is TimescaleDB, a store without events becomes a hypertable with the same columns and
-- indexes. One that has events stays as it is: to move them would lock out everybody.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        -- Its loader's setting tells that the library is loaded; without it, CREATE EXTENSION would
        -- end the connection.
        IF current_setting('timescaledb.disable_load', true) IS NULL
           OR NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') THEN
            RETURN;
        END IF;
        BEGIN
            CREATE EXTENSION timescaledb;
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE NOTICE 'timescaledb is there, and this role may not create it: plain partitions';
            RETURN;
        END;
    END IF;
    -- Nobody appends between the look and the change.
    LOCK TABLE event_store.events IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM event_store.events) THEN
        RETURN;
    END IF;
    CREATE TABLE event_store.hypertable (LIKE event_store.events INCLUDING ALL);
    DROP TABLE event_store.events;
    ALTER TABLE event_store.hypertable RENAME TO events;
    ALTER INDEX event_store.hypertable_pkey RENAME TO events_pkey;
    ALTER INDEX event_store.hypertable_user_id_occurred_at_idx
        RENAME TO events_user_id_occurred_at_idx;
    ALTER INDEX event_store.hypertable_xid_pos_idx RENAME TO events_xid_pos_idx;
    PERFORM create_hypertable('event_store.events', 'occurred_at', create_default_indexes => false,
                              chunk_time_interval => interval '7 days');
END $$;
