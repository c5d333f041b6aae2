-- What early V0.3 added to a database of V0.2.

ALTER TABLE entities
    ADD COLUMN file_url text,
    ADD COLUMN file_path text,
    ADD COLUMN file_size integer,
    ADD COLUMN file_type text CHECK (file_type IN ('markdown', 'pdf', 'audio', 'video', 'image')),
    ADD COLUMN checksum text;
CREATE INDEX idx_entities_checksum ON entities (checksum) WHERE checksum IS NOT NULL;
CREATE INDEX idx_entities_file_path ON entities (file_path) WHERE file_path IS NOT NULL;

CREATE TABLE entity_vectors (
    entity_id uuid PRIMARY KEY REFERENCES entities (id) ON DELETE CASCADE,
    user_id text NOT NULL,
    embedding vector(1536),
    embedding_model text NOT NULL DEFAULT 'text-embedding-3-small',
    entity_type text NOT NULL,
    title text,
    preview text,
    indexed_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_entity_vectors_embedding ON entity_vectors
    USING hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64);
CREATE INDEX idx_entity_vectors_user ON entity_vectors (user_id);
CREATE INDEX idx_entity_vectors_type ON entity_vectors (entity_type);
CREATE INDEX idx_entity_vectors_user_type ON entity_vectors (user_id, entity_type);
CREATE FUNCTION update_entity_vectors_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = now();
    RETURN NEW;
END
$$;
CREATE TRIGGER trigger_entity_vectors_updated_at BEFORE UPDATE ON entity_vectors
    FOR EACH ROW EXECUTE FUNCTION update_entity_vectors_updated_at();
ALTER TABLE entity_vectors ENABLE ROW LEVEL SECURITY;
CREATE POLICY user_entity_vectors ON entity_vectors
    USING (user_id = current_setting('app.current_user_id', true));

-- Without TimescaleDB it is an ordinary table.
CREATE TABLE events_v2 (
    id uuid NOT NULL,
    timestamp timestamptz NOT NULL DEFAULT now(),
    aggregate_id uuid NOT NULL,
    aggregate_type text NOT NULL CHECK (aggregate_type IN ('entity', 'relation', 'user', 'system')),
    event_type text NOT NULL,
    user_id text NOT NULL,
    data jsonb NOT NULL,
    metadata jsonb,
    version int NOT NULL,
    causation_id uuid,
    correlation_id uuid,
    source text NOT NULL CHECK (source IN ('api', 'automation', 'sync', 'migration', 'system'))
);
