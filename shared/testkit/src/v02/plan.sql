-- What each row will be. `n` counts from 0; every kind is a class of `n`, so that it is there in any
-- number of rows.

-- Kinds of entities:
--   plain            a note, page, task or project with text, in part with an embedding
--   no_block         without a content block
--   null_content     with one that holds nothing
--   empty_content    with one that holds the empty text
--   large            of 4 MiB; three at most
--   odd_text         all but NUL that Unicode has to offer: bidi, combining, private, control
--   deleted          soft-deleted, with its text
--   html             of another content type
--   elsewhere        in a store of V0.2's, with its path and without text
-- and, in early V0.3 only (`plain` otherwise), with file columns:
--   stored           whose object was written: users/{user}/{type}s/{id}.md, with its checksum
--   never_written    whose object was never written
--   edited_since     whose object is older than its text
CREATE TEMP TABLE entity_plan AS
SELECT n, md5(format('entity %s %s', seed, n))::uuid AS id, kind,
       CASE n % 11
           WHEN 1 THEN 'local-user' WHEN 2 THEN 'auth0|5f7c8ec7c33c6c004bbafe82'
           WHEN 3 THEN 'ada@example.org' WHEN 4 THEN 'a/b c' WHEN 5 THEN 'Jürgen Ω'
           ELSE format('user-%s', n % greatest(users, 1))
       END AS user_id,
       (ARRAY['note', 'note', 'note', 'note', 'page', 'task', 'project'])[1 + n % 7] AS type,
       timestamptz '2023-01-01 00:00:00.123457+00' + n * interval '61.000001 seconds' AS created_at
FROM wanted, generate_series(0, entities - 1) AS n, LATERAL (SELECT
    CASE n % 50
        WHEN 3 THEN 'no_block' WHEN 7 THEN 'null_content' WHEN 11 THEN 'empty_content'
        WHEN 15 THEN CASE WHEN n < 150 THEN 'large' ELSE 'plain' END
        WHEN 19 THEN 'odd_text' WHEN 23 THEN 'deleted' WHEN 27 THEN 'html'
        WHEN 31 THEN 'elsewhere' WHEN 35 THEN 'stored' WHEN 39 THEN 'never_written'
        WHEN 43 THEN 'edited_since'
        ELSE 'plain'
    END AS kind) AS k;
CREATE UNIQUE INDEX ON entity_plan (n);

-- Kinds of events. Of the entity `n % entities`, in the order of time; these can be migrated:
--   plain            created, then updated
--   null_source      without a source
--   upper_case       which write the entity's id in capitals
--   at_once          in the same microsecond as the event before, of the same entity
-- and these cannot:
--   not_an_object    data is a JSON array, text, number or null
--   no_entity        data has no entityId
--   not_a_uuid       entityId is no UUID
--   names_nothing    entityId is the UUID of nothing
--   other_user       the entity is another user's
--   odd_type         of a type that is no type: without a dot, empty, with blanks
--   odd_source       of a source that nobody knows
--   over_long        data of more than 64 KiB
--   odd_number       a number beyond any double
--   no_time          at an infinite time
CREATE TEMP TABLE event_plan AS
SELECT n, md5(format('event %s %s', seed, n))::uuid AS id, kind,
       CASE kind WHEN 'at_once' THEN n - 1 ELSE n END % greatest(entities, 1) AS entity,
       timestamptz '2023-01-01 00:00:01.654321+00'
           + CASE kind WHEN 'at_once' THEN n - 1 ELSE n END * interval '37.000003 seconds'
           AS occurred_at
FROM wanted, generate_series(0, events - 1) AS n, LATERAL (SELECT
    CASE n % 500
        WHEN 5 THEN 'not_an_object' WHEN 35 THEN 'no_entity' WHEN 65 THEN 'not_a_uuid'
        WHEN 95 THEN 'names_nothing' WHEN 125 THEN 'other_user' WHEN 155 THEN 'odd_type'
        WHEN 185 THEN 'odd_source' WHEN 215 THEN 'null_source' WHEN 245 THEN 'upper_case'
        WHEN 275 THEN CASE WHEN n < 5000 THEN 'over_long' ELSE 'plain' END
        WHEN 305 THEN 'odd_number' WHEN 335 THEN 'no_time' WHEN 365 THEN 'at_once'
        ELSE 'plain'
    END AS kind) AS k;
