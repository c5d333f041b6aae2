-- The tables of Synap V0.2 and early V0.3 that entity-service takes over. On a fresh database they
-- are created; on a running installation nothing that is there is changed but by adding to it.

CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE IF NOT EXISTS entities (
    id         uuid PRIMARY KEY,
    user_id    text NOT NULL,
    type       text NOT NULL,
    title      text,
    preview    text,
    version    integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);

-- The body's place in the object store (early V0.3).
ALTER TABLE entities ADD COLUMN IF NOT EXISTS file_url  text;
ALTER TABLE entities ADD COLUMN IF NOT EXISTS file_path text;
ALTER TABLE entities ADD COLUMN IF NOT EXISTS file_size bigint;
ALTER TABLE entities ADD COLUMN IF NOT EXISTS file_type text
    CHECK (file_type IN ('markdown', 'pdf', 'audio', 'video', 'image'));
ALTER TABLE entities ADD COLUMN IF NOT EXISTS checksum  text;

-- Early V0.3 made file_size an integer; a file may be larger than 2 GiB. Rewrites the table where
-- it must, and only there.
DO $$
BEGIN
    IF (SELECT atttypid FROM pg_attribute
        WHERE attrelid = 'entities'::regclass AND attname = 'file_size') <> 'bigint'::regtype
    THEN
        ALTER TABLE entities ALTER COLUMN file_size TYPE bigint;
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS content_blocks (
    entity_id        uuid PRIMARY KEY REFERENCES entities ON DELETE CASCADE,
    storage_provider text NOT NULL DEFAULT 'db',
    storage_path     text,
    storage_url      text,
    content          text,
    content_type     text NOT NULL DEFAULT 'markdown',
    mime_type        text,
    size_bytes       integer,
    checksum         text,
    embedding        vector(1536),
    embedding_model  text DEFAULT 'text-embedding-3-small',
    uploaded_at      timestamptz NOT NULL DEFAULT now(),
    last_modified_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS entity_vectors (
    entity_id       uuid PRIMARY KEY REFERENCES entities ON DELETE CASCADE,
    user_id         text NOT NULL,
    embedding       vector(1536),
    embedding_model text NOT NULL DEFAULT 'text-embedding-3-small',
    entity_type     text NOT NULL,
    title           text,
    preview         text,
    indexed_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);

-- Installations have these indexes under names of their own: one is made only where no index serves
-- the same queries. Its name, its storage parameters (an HNSW index over millions of vectors takes
-- hours to build) and where it puts NULLs do not matter.
CREATE FUNCTION pg_temp.ensure_index(name text, target regclass, definition text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    incidental CONSTANT text := '^.* ON (ONLY )?\S+ (?=USING)| WITH \([^)]*\)| NULLS (FIRST|LAST)';
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = target AND i.indisvalid
          AND regexp_replace(pg_get_indexdef(i.indexrelid), incidental, '', 'g')
            = regexp_replace(definition, incidental, '', 'g')
    ) THEN
        EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON %s %s', name, target, definition);
    END IF;
END
$$;

SELECT pg_temp.ensure_index('entities_user_id_idx', 'entities', 'USING btree (user_id)'),
       pg_temp.ensure_index('entities_type_idx', 'entities', 'USING btree (type)'),
       pg_temp.ensure_index('entities_created_at_idx', 'entities', 'USING btree (created_at DESC)'),
       pg_temp.ensure_index('entities_live_idx', 'entities',
                            'USING btree (deleted_at) WHERE (deleted_at IS NULL)'),
       pg_temp.ensure_index('entities_checksum_idx', 'entities',
                            'USING btree (checksum) WHERE (checksum IS NOT NULL)'),
       pg_temp.ensure_index('entities_file_path_idx', 'entities',
                            'USING btree (file_path) WHERE (file_path IS NOT NULL)'),
       pg_temp.ensure_index('content_blocks_storage_provider_idx', 'content_blocks',
                            'USING btree (storage_provider)'),
       pg_temp.ensure_index('content_blocks_embedding_idx', 'content_blocks',
                            'USING hnsw (embedding vector_cosine_ops)'),
       pg_temp.ensure_index('entity_vectors_user_id_idx', 'entity_vectors',
                            'USING btree (user_id)'),
       pg_temp.ensure_index('entity_vectors_entity_type_idx', 'entity_vectors',
                            'USING btree (entity_type)'),
       pg_temp.ensure_index('entity_vectors_user_id_entity_type_idx', 'entity_vectors',
                            'USING btree (user_id, entity_type)'),
       pg_temp.ensure_index('entity_vectors_embedding_idx', 'entity_vectors',
                            $$USING hnsw (embedding vector_cosine_ops) WITH (m='16', ef_construction='64')$$);

CREATE OR REPLACE FUNCTION synap_set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

-- Row-level security as V0.2 has it: the owner of the tables is exempt, every other role sees the
-- rows of app.current_user_id only. Policies that are there already are left alone.
DO $$
DECLARE
    rule record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger
                   WHERE tgrelid = 'entity_vectors'::regclass AND NOT tgisinternal) THEN
        CREATE TRIGGER entity_vectors_set_updated_at BEFORE UPDATE ON entity_vectors
            FOR EACH ROW EXECUTE FUNCTION synap_set_updated_at();
    END IF;

    FOR rule IN
        SELECT * FROM (VALUES
            ('entities', $r$user_id = current_setting('app.current_user_id', true)$r$),
            ('entity_vectors', $r$user_id = current_setting('app.current_user_id', true)$r$),
            ('content_blocks', $r$EXISTS (SELECT FROM entities e WHERE e.id = entity_id
                AND e.user_id = current_setting('app.current_user_id', true))$r$)
        ) AS rules (target, condition)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = rule.target::regclass) THEN
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', rule.target);
            EXECUTE format('CREATE POLICY %I ON %I USING (%s) WITH CHECK (%s)',
                           rule.target || '_of_user', rule.target, rule.condition, rule.condition);
        END IF;
    END LOOP;
END
$$;
