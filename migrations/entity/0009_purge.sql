-- no-transaction
-- The purge asks for the deletions that are longest ago. Only our own have a revision: what V0.2 has
-- deleted can still be undeleted. Almost every revision is none and not in here.
CREATE INDEX CONCURRENTLY entity_revisions_deleted_idx ON entity_revisions (deleted_at)
    WHERE deleted_at IS NOT NULL;
