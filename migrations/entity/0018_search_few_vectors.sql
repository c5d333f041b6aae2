-- The search of a user who has few vectors, which is that of most: a whole transaction in one round
-- trip, as those of 0015. For such a user the round trips cost more than the comparing.

-- Every vector of the user is compared: no index can order by a sum. Whether its entity counts is
-- asked from the nearest on, until there are `vectors` of them. A user who has more than `few` vectors
-- of the model gets one row without an entity.
CREATE FUNCTION synap_search_few_vectors(
    owner text, model text, question vector, kind text, vectors bigint, few bigint
) RETURNS TABLE (distance float8, id uuid, user_id text, type text, title text, preview text,
                 tags text[], file_url text, file_path text, file_size bigint, file_type text,
                 checksum text, file_name text, version integer, created_at timestamptz,
                 updated_at timestamptz, deleted_at timestamptz)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM synap_become(ARRAY[owner]);
    IF (SELECT count(*) FROM (SELECT FROM entity_vectors v
                              WHERE v.user_id = owner AND v.embedding_model = model
                              LIMIT few + 1) AS counted) > few THEN
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT v.distance, e.id, e.user_id, e.type, e.title, e.preview, e.tags, e.file_url, e.file_path,
           e.file_size, e.file_type, e.checksum, e.file_name, e.version, e.created_at, e.updated_at,
           e.deleted_at
    FROM (SELECT entity_id, (embedding <=> question) + 0 AS distance FROM entity_vectors
          WHERE user_id = owner AND embedding_model = model AND embedding IS NOT NULL
          ORDER BY distance) AS v
    JOIN entities e ON e.id = v.entity_id
    WHERE (e.user_id = owner AND e.type = kind AND e.deleted_at IS NULL) IS TRUE
    ORDER BY v.distance
    LIMIT vectors;
END
$$;
