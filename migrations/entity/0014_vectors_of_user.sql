-- no-transaction
-- A search first counts the user's vectors of a model, and compares all of them where they are few.
CREATE INDEX CONCURRENTLY entity_vectors_user_model_idx ON entity_vectors (user_id, embedding_model);
