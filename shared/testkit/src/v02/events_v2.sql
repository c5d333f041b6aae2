-- A tenth as many rows as in `events`. Kinds that can be migrated:
--   own              of an entity, version 1 as all are
--   relation         of a relation, whose events V0.2 did not have
-- and those that cannot, because the event is there already:
--   time_lost        a copy of a row of `events` at the time of the copy
--   again            an own one a second time, in every column
--   id_reused        the id of an own one, of another event
-- and, for its type:
--   odd_type         `created`, without a thing
CREATE TEMP TABLE event_v2_plan AS
SELECT n, kind,
       CASE kind WHEN 'time_lost' THEN md5(format('event %s %s', seed, n * 3 + 1))::uuid
                 WHEN 'again' THEN md5(format('own %s %s', seed, n - 1))::uuid
                 WHEN 'id_reused' THEN md5(format('own %s %s', seed, n - 2))::uuid
                 ELSE md5(format('own %s %s', seed, n))::uuid END AS id,
       CASE kind WHEN 'again' THEN n - 1 WHEN 'id_reused' THEN n - 2 ELSE n END AS origin
FROM wanted, generate_series(0, events / 10 - 1) AS n, LATERAL (SELECT
    CASE n % 10 WHEN 1 THEN 'again' WHEN 2 THEN 'id_reused' WHEN 4 THEN 'relation'
                WHEN 5 THEN 'odd_type' WHEN 7 THEN 'time_lost' WHEN 8 THEN 'time_lost'
                ELSE 'own' END AS kind) AS k;

INSERT INTO events_v2
SELECT v.id, CASE kind WHEN 'id_reused' THEN moment + interval '1 hour' ELSE moment END,
       CASE kind WHEN 'relation' THEN md5('relation ' || e.user_id)::uuid ELSE e.id END,
       CASE kind WHEN 'relation' THEN 'relation' ELSE 'entity' END,
       CASE kind WHEN 'odd_type' THEN 'created' WHEN 'relation' THEN 'relation.created'
                 ELSE 'entity.updated' END,
       e.user_id, jsonb_build_object('n', v.origin), '{"via": "trial"}', 1, NULL, NULL, 'migration'
FROM event_v2_plan AS v
CROSS JOIN LATERAL (SELECT timestamptz '2025-06-01+00' + v.origin * interval '1.000001 minutes'
                    AS moment) AS m
JOIN (SELECT p.id, p.user_id, p.n AS of FROM entity_plan p) AS e
    ON e.of = (SELECT origin % greatest(entities, 1) FROM wanted)
ORDER BY v.n;
