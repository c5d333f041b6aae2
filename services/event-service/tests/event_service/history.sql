-- $1 events of 60 days up to now, as the gateway writes them: notes of some users, each created and
-- then rewritten, retitled or deleted. Ids are UUIDv7 of their time.
WITH RECURSIVE
numbered AS (
    SELECT n, now() - interval '60 days' * (1 - n::float8 / $1) AS at,
           -- Most edits are of what is recent.
           CASE WHEN n % 3 = 1 THEN n ELSE greatest(1, n - n % 3 + 1 - 3 * floor(random() ^ 3 * least(n / 3, 4000))::bigint) END AS note
    FROM generate_series(1, $1::bigint) AS n
),
versioned AS (
    SELECT n, at, note, 'auth0|' || substr(md5((note % (1 + $1 / 200))::text), 1, 24) AS user_id,
           row_number() OVER (PARTITION BY note ORDER BY n) AS version,
           (lpad(to_hex((extract(epoch FROM now() - interval '60 days' * (1 - note::float8 / $1)) * 1000)::bigint), 12, '0')
            || '7' || substr(md5('n' || note), 1, 3) || '8' || substr(md5('m' || note), 1, 15))::uuid AS note_id,
           (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
            || '7' || substr(md5('e' || n), 1, 3) || '9' || substr(md5('f' || n), 1, 15))::uuid AS event_id
    FROM numbered
),
described AS (
    SELECT *,
           jsonb_build_object(
               'path', 'users/' || replace(user_id, '|', '%7C') || '/notes/' || note_id
                       || CASE version WHEN 1 THEN '' ELSE '/' || event_id END || '.md',
               'size', 200 + (n * 7919) % 9000,
               'checksum', 'sha256:' || encode(sha256(convert_to(n::text, 'UTF8')), 'base64')) AS file,
           'What was said on ' || to_char(at, 'Day') || 'about ' || substr(md5(note::text), 1, 8) AS title
    FROM versioned
),
typed AS (
    SELECT *,
           CASE WHEN version = 1 THEN 'entity.created'
                WHEN n % 10 = 2 THEN 'entity.deleted' ELSE 'entity.updated' END AS event_type,
           CASE WHEN version = 1 THEN jsonb_build_object(
                    'entityType', 'note', 'title', title, 'tags', jsonb_build_array('work', 'q' || n % 4),
                    'file', file, 'inputType', 'text', 'audioUrl', NULL, 'autoEnrich', false)
                WHEN n % 10 = 2 THEN jsonb_build_object('entityType', 'note')
                ELSE jsonb_build_object('entityType', 'note', 'file', file) END AS data
    FROM described
),
heads AS (
    INSERT INTO event_store.streams
    SELECT 'note', note_id, user_id, max(version) FROM typed GROUP BY note_id, user_id
),
ledger AS (
    INSERT INTO event_store.event_ids
    SELECT event_id, sha256(convert_to(n::text, 'UTF8')), 'note', note_id, version, at FROM typed
),
counts AS (
    INSERT INTO event_store.daily_activity
    SELECT user_id, (at AT TIME ZONE 'UTC')::date, event_type, 'note', count(*) FROM typed GROUP BY 1, 2, 3
)
INSERT INTO event_store.events
    (event_id, aggregate_type, aggregate_id, version, event_type, user_id, occurred_at,
     data, metadata, causation_id, correlation_id, source, recorded_at)
SELECT event_id, 'note', note_id, version, event_type, user_id, at, data, '{}', NULL,
       CASE WHEN n % 500 = 0 THEN note_id END, 'api', at + interval '1 millisecond' * (3 + n % 17)
FROM typed
ORDER BY n
