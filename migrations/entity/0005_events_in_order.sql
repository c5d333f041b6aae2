-- no-transaction
-- The events of one entity are appended in the order of its versions: recovery hands out the oldest
-- committed operation of an entity only. Almost every row is DONE and not in here.
CREATE INDEX CONCURRENTLY write_operations_committed_idx ON write_operations (entity_id, entity_version)
    WHERE state = 'COMMITTED';
