-- Files beside notes, deletions, and uploads that take longer than a request.

-- The name that a user's file had; a browser saves it under that.
ALTER TABLE entities ADD COLUMN IF NOT EXISTS file_name text;
ALTER TABLE entity_revisions ADD COLUMN file_name text;
-- Set in the revision that a deletion makes: what a repeated deletion is answered with.
ALTER TABLE entity_revisions ADD COLUMN deleted_at timestamptz;

-- What whoever completes a direct upload must know of it. json, not jsonb: it comes back as it was.
ALTER TABLE write_operations ADD COLUMN draft json;
-- A deletion writes no body.
ALTER TABLE write_operations ALTER COLUMN blob_key DROP NOT NULL;
-- Wider than before, so every row that is there keeps it; 0004 says so to PostgreSQL.
ALTER TABLE write_operations DROP CONSTRAINT write_operations_kind_check;
ALTER TABLE write_operations ADD CONSTRAINT write_operations_kind_check
    CHECK (kind IN ('create', 'delete')) NOT VALID;
