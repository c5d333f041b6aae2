-- The statements of many callers at once: each of these functions is a whole transaction, the wall's
-- prelude included, so that it costs one round trip instead of four (docs/walls.md). Arguments are
-- arrays with one element for each operation, in the order in which all replicas lock. Elements are
-- taken by their place: `unnest` of so many arrays costs more than an INSERT.

-- What `Database::for_user` begins a transaction with, for several users.
CREATE FUNCTION synap_become(users text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('role', 'synap_entity', true),
            set_config('app.current_user_ids', users::text, true);
END
$$;

-- Step 1 of the write protocol: a first attempt at each operation that nobody has begun. Answers
-- those that it began.
CREATE FUNCTION synap_begin_operations(
    users text[], requests uuid[], kinds text[], attempts uuid[], lease_secs float8[],
    fingerprints bytea[], entity_types text[], extensions text[], entities uuid[], blob_keys text[],
    events uuid[], drafts text[]
) RETURNS TABLE (user_id text, request_id uuid, occurred_at timestamptz, phase text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM synap_become(users);
    RETURN QUERY
    INSERT INTO write_operations
        (user_id, request_id, kind, state, epoch, attempt_id, lease_until, fingerprint,
         entity_type, extension, entity_id, blob_key, event_id, occurred_at, draft)
    SELECT users[n], requests[n], kinds[n], 'PENDING', 1, attempts[n],
           clock_timestamp() + make_interval(secs => lease_secs[n]), fingerprints[n],
           entity_types[n], extensions[n], entities[n], blob_keys[n], events[n],
           clock_timestamp(), drafts[n]::json
    FROM generate_series(1, cardinality(requests)) AS n
    ON CONFLICT (user_id, request_id) DO NOTHING
    RETURNING write_operations.user_id, write_operations.request_id, write_operations.occurred_at,
        (SELECT s.phase FROM storage_phase s WHERE s.only_row);
END
$$;

-- Step 3, the pivot of creates: each operation whose newest attempt this is becomes COMMITTED, and
-- only those get their rows. An operation that is not in the answer has written nothing. A row can
-- only name the key that its attempt was given: no row ever points at another's blob.
--
-- `phase_lock` is held, shared, until the end of the transaction, and taken before the statement
-- that reads the storage phase gets its snapshot. `event_lease_secs` is when recovery appends the
-- event if nobody has. `places` counts the operations from 1: whatever else counts them is either
-- taken for a thousand rows, so that the planner begins at the other end of the join, or for bigint,
-- whose cast is not leakproof and keeps row-level security from the index.
CREATE FUNCTION synap_commit_creates(
    phase_lock bigint, event_lease_secs float8, search_language text, places int4[],
    users text[], requests uuid[], epochs int8[], phases text[], titles text[], previews text[],
    tag_lists text[], file_urls text[], file_paths text[], file_sizes int8[], file_types text[],
    checksums text[], file_names text[], blocks text[], search_texts text[],
    event_types text[], event_bodies text[]
) RETURNS TABLE (user_id text, request_id uuid, entity_id uuid, entity_type text,
                 occurred_at timestamptz)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    -- Variables, so that no plan reads the index of all open operations instead of asking for these
    -- by their primary key.
    pending text := 'PENDING';
    language regconfig := synap_search_language(search_language);
BEGIN
    PERFORM synap_become(users), pg_advisory_xact_lock_shared(phase_lock);
    RETURN QUERY
    WITH pivot AS (
        UPDATE write_operations o
        SET state = 'COMMITTED', committed_epoch = o.epoch, entity_version = 1,
            event_type = event_types[n], event_data = event_bodies[n]::json,
            lease_until = clock_timestamp() + make_interval(secs => event_lease_secs),
            updated_at = clock_timestamp()
        FROM unnest(places) AS n
        WHERE o.user_id = users[n] AND o.request_id = requests[n]
          AND o.epoch = epochs[n] AND o.state = pending AND o.kind = 'create'
          AND (file_paths[n] IS NULL OR file_paths[n] = o.blob_key)
          AND phases[n] = CASE o.entity_type WHEN 'file' THEN 'object_only'
                          ELSE (SELECT s.phase FROM storage_phase s WHERE s.only_row) END
        RETURNING n, o.user_id, o.request_id, o.entity_id, o.entity_type, o.occurred_at,
            ARRAY(SELECT jsonb_array_elements_text(tag_lists[n]::jsonb)) AS tags
    ),
    entity AS (
        INSERT INTO entities (id, user_id, type, title, preview, tags, version, created_at,
                              updated_at, file_url, file_path, file_size, file_type, checksum,
                              file_name)
        SELECT entity_id, user_id, entity_type, titles[n], previews[n], tags, 1, occurred_at,
               occurred_at, file_urls[n], file_paths[n], file_sizes[n], file_types[n], checksums[n],
               file_names[n]
        FROM pivot
    ),
    revision AS (
        INSERT INTO entity_revisions (entity_id, version, user_id, title, preview, tags, file_url,
                                      file_path, file_size, file_type, checksum, file_name,
                                      created_at)
        SELECT entity_id, 1, user_id, titles[n], previews[n], tags, file_urls[n], file_paths[n],
               file_sizes[n], file_types[n], checksums[n], file_names[n], occurred_at
        FROM pivot
    ),
    block AS (
        INSERT INTO content_blocks (entity_id, user_id, content, content_type, mime_type, size_bytes,
                                    checksum, uploaded_at, last_modified_at)
        SELECT entity_id, user_id, blocks[n], 'markdown', 'text/markdown',
               octet_length(blocks[n]), checksums[n], occurred_at, occurred_at
        FROM pivot WHERE blocks[n] IS NOT NULL
    ),
    search AS (
        INSERT INTO entity_search (entity_id, user_id, document)
        SELECT entity_id, user_id,
               synap_search_document(user_id, titles[n], search_texts[n], tags, language)
        FROM pivot WHERE search_texts[n] IS NOT NULL
    )
    SELECT user_id, request_id, entity_id, entity_type, occurred_at FROM pivot;
END
$$;

-- Step 5: the events of these operations are appended. Epochs are not compared: an appended event is
-- appended, whoever did it.
CREATE FUNCTION synap_finish_operations(users text[], requests uuid[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    committed text := 'COMMITTED';
BEGIN
    PERFORM synap_become(users);
    UPDATE write_operations o
    SET state = 'DONE', updated_at = clock_timestamp()
    FROM unnest(users, requests) AS i (user_id, request_id)
    WHERE o.user_id = i.user_id AND o.request_id = i.request_id AND o.state = committed;
END
$$;
