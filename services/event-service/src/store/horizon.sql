-- The horizon of the feed, and who keeps it back. The oldest transaction that runs may be anywhere
-- in the cluster, in another database too; a role without pg_read_all_stats sees only its own.
SELECT (SELECT max(epoch) FROM event_store.epochs) AS epoch,
       pg_snapshot_xmin(snapshot)::text::bigint AS xid,
       pg_snapshot_xmin(snapshot) < pg_snapshot_xmax(snapshot) AS is_behind,
       holder.pid,
       holder.database,
       (extract(epoch FROM clock_timestamp() - holder.since) * 1000)::bigint AS age_ms
FROM (SELECT pg_current_snapshot() AS snapshot) AS s
LEFT JOIN LATERAL (
    -- A transaction's 32 bits, as these views show them.
    SELECT a.pid, a.datname::text AS database, a.xact_start AS since
    FROM pg_stat_activity AS a
    WHERE a.backend_xid::text::bigint = pg_snapshot_xmin(snapshot)::text::bigint % 4294967296
    UNION ALL
    SELECT NULL, p.database::text, p.prepared
    FROM pg_prepared_xacts AS p
    WHERE p.transaction::text::bigint = pg_snapshot_xmin(snapshot)::text::bigint % 4294967296
    LIMIT 1
) AS holder ON pg_snapshot_xmin(snapshot) < pg_snapshot_xmax(snapshot)
