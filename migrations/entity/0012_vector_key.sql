-- no-transaction
-- The key of 0013, made while writers go on.
CREATE UNIQUE INDEX CONCURRENTLY entity_vectors_key
    ON entity_vectors (entity_id, embedding_model, chunk);
