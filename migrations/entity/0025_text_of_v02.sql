-- The text of an entity in content_blocks, if V0.2 wrote it (what is ours says whose it is). Where early
-- V0.3 named an object, too, this is what counts until it is migrated: the object may be older.
CREATE FUNCTION synap_text_of_v02(entity uuid) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF to_regclass('content_blocks') IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT nullif(b.content, '') FROM content_blocks b
            WHERE b.entity_id = entity AND b.user_id IS NULL);
EXCEPTION WHEN undefined_table THEN
    -- Renamed since it was looked for.
    RETURN NULL;
END
$$;
