-- The tables of Synap V0.2.

CREATE EXTENSION vector;

CREATE TABLE entities (
    id uuid PRIMARY KEY,
    user_id text NOT NULL,
    type text NOT NULL,
    title text,
    preview text,
    version int NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE INDEX idx_entities_user_id ON entities (user_id);
CREATE INDEX idx_entities_type ON entities (type);
CREATE INDEX idx_entities_created_at ON entities (created_at DESC NULLS LAST);
CREATE INDEX idx_entities_deleted_at ON entities (deleted_at) WHERE deleted_at IS NULL;

CREATE TABLE content_blocks (
    entity_id uuid PRIMARY KEY REFERENCES entities (id) ON DELETE CASCADE,
    storage_provider text NOT NULL DEFAULT 'db',
    storage_path text,
    storage_url text,
    content text,
    content_type text NOT NULL DEFAULT 'markdown',
    mime_type text,
    size_bytes int,
    checksum text,
    embedding vector(1536),
    embedding_model text DEFAULT 'text-embedding-3-small',
    uploaded_at timestamptz NOT NULL DEFAULT now(),
    last_modified_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_content_blocks_embedding ON content_blocks
    USING hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64);
CREATE INDEX idx_content_blocks_provider ON content_blocks (storage_provider);

CREATE TABLE events (
    id uuid PRIMARY KEY,
    user_id text NOT NULL,
    timestamp timestamptz NOT NULL DEFAULT now(),
    type text NOT NULL,
    data jsonb NOT NULL,
    source text DEFAULT 'api',
    correlation_id uuid
);
CREATE INDEX idx_events_user_id ON events (user_id);
CREATE INDEX idx_events_timestamp ON events (timestamp DESC);
CREATE INDEX idx_events_type ON events (type);
CREATE INDEX idx_events_correlation ON events (correlation_id) WHERE correlation_id IS NOT NULL;

CREATE TABLE relations (
    id uuid PRIMARY KEY,
    user_id text NOT NULL,
    source_id uuid NOT NULL REFERENCES entities (id) ON DELETE CASCADE,
    target_id uuid NOT NULL REFERENCES entities (id) ON DELETE CASCADE,
    type text NOT NULL
);
CREATE TABLE task_details (
    entity_id uuid PRIMARY KEY REFERENCES entities (id) ON DELETE CASCADE,
    status text NOT NULL DEFAULT 'todo',
    due_date timestamptz
);
CREATE TABLE tags (
    id uuid PRIMARY KEY,
    user_id text NOT NULL,
    name text NOT NULL,
    UNIQUE (user_id, name)
);
CREATE TABLE entity_tags (
    entity_id uuid REFERENCES entities (id) ON DELETE CASCADE,
    tag_id uuid REFERENCES tags (id) ON DELETE CASCADE,
    PRIMARY KEY (entity_id, tag_id)
);

ALTER TABLE entities ENABLE ROW LEVEL SECURITY;
ALTER TABLE content_blocks ENABLE ROW LEVEL SECURITY;
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
ALTER TABLE relations ENABLE ROW LEVEL SECURITY;
ALTER TABLE task_details ENABLE ROW LEVEL SECURITY;
ALTER TABLE tags ENABLE ROW LEVEL SECURITY;
ALTER TABLE entity_tags ENABLE ROW LEVEL SECURITY;
CREATE POLICY user_entities ON entities
    USING (user_id = current_setting('app.current_user_id', true));
CREATE POLICY user_content_blocks ON content_blocks
    USING (entity_id IN (SELECT id FROM entities
                         WHERE user_id = current_setting('app.current_user_id', true)));
CREATE POLICY user_events ON events
    USING (user_id = current_setting('app.current_user_id', true));
CREATE POLICY user_relations ON relations
    USING (user_id = current_setting('app.current_user_id', true));
CREATE POLICY user_tags ON tags
    USING (user_id = current_setting('app.current_user_id', true));
