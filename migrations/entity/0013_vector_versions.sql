-- From one vector an entity to one for each model and chunk. Every statement here changes the
-- catalogue only.
DO $$
DECLARE
    old text := (SELECT conname FROM pg_constraint
                 WHERE conrelid = 'entity_vectors'::regclass AND contype = 'p');
BEGIN
    EXECUTE format('ALTER TABLE entity_vectors DROP CONSTRAINT %I', old);
END
$$;
ALTER TABLE entity_vectors
    ADD CONSTRAINT entity_vectors_pkey PRIMARY KEY USING INDEX entity_vectors_key;

-- New rows keep their vector beside the rest, one row a page: out of line it takes four more pages
-- and a search of its own to compare it, and the planner does not count those.
ALTER TABLE entity_vectors ALTER COLUMN embedding SET STORAGE PLAIN;
