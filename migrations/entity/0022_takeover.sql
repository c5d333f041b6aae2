-- The end of content_blocks. In object_only and legacy_dropped no statement may name the table: it is
-- renamed and dropped while replicas serve (`synapctl drop-legacy`), and one that names it fails even
-- where it would not touch a row. PL/pgSQL looks at a statement only when it is run.

-- What must be remembered of the table when it is gone.
CREATE TABLE legacy_content (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- Whose backup is whose: that of another installation must not be written over.
    installation uuid NOT NULL DEFAULT gen_random_uuid(),
    -- When it got its other name; null while it has its own.
    renamed_at   timestamptz,
    dropped_at   timestamptz,
    -- What was told of the backup when the table was renamed.
    backup       jsonb,
    -- How to make it again, as the database itself wrote it down before the rename, with {table} for
    -- its name: columns as they are exported, the statement that makes it, those that follow when its
    -- rows are there, and those that bind it to other tables and to roles.
    columns      text[],
    definition   text,
    finish       text[],
    attach       text[]
);
INSERT INTO legacy_content DEFAULT VALUES;

-- Whether a checksum, as rows have it (`sha256:` and base64 or hex), is of a body with this SHA-256.
-- Null where either is missing.
CREATE FUNCTION synap_is_checksum(hash bytea, checksum text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN nullif(checksum, '') = 'sha256:' || encode(hash, 'base64')
    OR lower(nullif(checksum, '')) = 'sha256:' || encode(hash, 'hex');

-- The body of an entity in content_blocks, for the statement that reads its row, in the same snapshot.
-- Where there is no such table any more there is no body. While there is one that may be older than
-- the row (not `any_body`), a block that is ours (it says whose it is) counts only with the checksum
-- of the row: the entity was changed in a phase that writes no blocks, before somebody went back.
CREATE FUNCTION synap_content_block(entity uuid, row_checksum text, any_body boolean) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF to_regclass('content_blocks') IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT b.content FROM content_blocks b
            WHERE b.entity_id = entity
              AND (any_body OR b.user_id IS NULL OR b.checksum IS NOT DISTINCT FROM row_checksum));
EXCEPTION WHEN undefined_table THEN
    -- Renamed since it was looked for.
    RETURN NULL;
END
$$;

-- The pivot of creates as 0019 has it, once with the content blocks and once without them: which one
-- is said by the phase, which does not change while the lock is held.
DO $do$
DECLARE
    pivot text := $pivot$
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
    /* block */
    search AS (
        INSERT INTO entity_search (entity_id, user_id, document)
        SELECT entity_id, user_id,
               CASE WHEN documents[n] IS NULL
                    THEN synap_search_document(user_id, titles[n], search_texts[n], tags, language)
                    ELSE documents[n]::tsvector END
        FROM pivot WHERE search_texts[n] IS NOT NULL
    )
    SELECT user_id, request_id, entity_id, entity_type, occurred_at FROM pivot
    $pivot$;
    block text := $block$
    block AS (
        INSERT INTO content_blocks (entity_id, user_id, content, content_type, mime_type, size_bytes,
                                    checksum, uploaded_at, last_modified_at)
        SELECT entity_id, user_id, blocks[n], 'markdown', 'text/markdown',
               octet_length(blocks[n]), checksums[n], occurred_at, occurred_at
        FROM pivot WHERE blocks[n] IS NOT NULL
    ),
    $block$;
    definition text := $create$
CREATE OR REPLACE FUNCTION synap_commit_creates(
    phase_lock bigint, event_lease_secs float8, search_language text, places int4[],
    users text[], requests uuid[], epochs int8[], phases text[], titles text[], previews text[],
    tag_lists text[], file_urls text[], file_paths text[], file_sizes int8[], file_types text[],
    checksums text[], file_names text[], blocks text[], search_texts text[],
    event_types text[], event_bodies text[], documents text[]
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
    IF EXISTS (SELECT FROM storage_phase s
               WHERE s.only_row AND s.phase IN ('legacy', 'dual_write', 'object_primary')) THEN
        RETURN QUERY /* with blocks */;
    ELSE
        RETURN QUERY /* without blocks */;
    END IF;
END
$$
    $create$;
BEGIN
    definition := replace(definition, '/* with blocks */', replace(pivot, '/* block */', block));
    definition := replace(definition, '/* without blocks */', replace(pivot, '/* block */', ''));
    EXECUTE definition;
END
$do$;
