-- The pivot of creates as 0015 has it, which stays for the release before. New: `documents`, of those
-- whose search document is made already; the others' is made here.
CREATE FUNCTION synap_commit_creates(
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
               CASE WHEN documents[n] IS NULL
                    THEN synap_search_document(user_id, titles[n], search_texts[n], tags, language)
                    ELSE documents[n]::tsvector END
        FROM pivot WHERE search_texts[n] IS NOT NULL
    )
    SELECT user_id, request_id, entity_id, entity_type, occurred_at FROM pivot;
END
$$;
