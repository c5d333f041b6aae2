-- Compares the counts of one day with its events; see Admin::compare_day. No row if the archive has
-- other files of that day than the caller has counted. Of a day whose events are deleted it only says
-- so: what deletes them says how far it will go before it begins, and this looks at one moment.
--
-- $1..$3   the day, its first moment, the first moment after it
-- $4       whether to put the counts right
-- $5..$8   what the archive has of the day: user_id, event_type, aggregate_type, count
-- $9       the archive's files that were counted
WITH
known AS MATERIALIZED (
    SELECT (SELECT coalesce(array_agg(archive_id ORDER BY archive_id), '{}')
            FROM event_store.archives
            WHERE state = 'archived' AND begins_at < $3 AND ends_at > $2)
           = (SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM unnest($9::uuid[]) AS id)
           AS are_all,
           EXISTS (SELECT FROM event_store.retention WHERE deleted_before > $2) AS is_deleted
),
happened AS (
    SELECT user_id, event_type, aggregate_type, sum(count)::bigint AS count
    FROM (
        SELECT user_id, event_type, aggregate_type, count(*) AS count
        FROM event_store.events
        WHERE occurred_at >= $2 AND occurred_at < $3
        GROUP BY 1, 2, 3
        UNION ALL
        SELECT * FROM unnest($5::text[], $6::text[], $7::text[], $8::bigint[])
    ) AS both_places
    GROUP BY 1, 2, 3
),
both_sides AS MATERIALIZED (
    SELECT user_id, event_type, aggregate_type,
           coalesce(h.count, 0) AS happened, coalesce(d.count, 0) AS counted
    FROM happened AS h
    FULL JOIN (SELECT * FROM event_store.daily_activity WHERE day = $1) AS d
    USING (user_id, event_type, aggregate_type)
    WHERE (SELECT are_all AND NOT is_deleted FROM known)
),
repaired AS (
    INSERT INTO event_store.daily_activity AS d (user_id, day, event_type, aggregate_type, count)
    SELECT user_id, $1, event_type, aggregate_type, happened - counted
    FROM both_sides
    WHERE happened <> counted AND $4
    -- As the appends do.
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (user_id, day, event_type, aggregate_type) DO UPDATE
    SET count = d.count + excluded.count
)
SELECT coalesce(sum(happened), 0)::bigint AS events,
       coalesce(sum(counted), 0)::bigint AS counted,
       count(*) FILTER (WHERE happened <> counted) AS differences,
       (SELECT is_deleted FROM known) AS is_deleted
FROM both_sides
HAVING (SELECT are_all OR is_deleted FROM known)
