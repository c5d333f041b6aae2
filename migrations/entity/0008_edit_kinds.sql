-- The first event of an entity that had its versions before it had events: V0.2's. A constant
-- default: no rewrite.
ALTER TABLE write_operations ADD COLUMN adopts boolean NOT NULL DEFAULT false;

-- Writes on what is there: updates, undeletions, purges; `repair` is checked with them. Wider than
-- before, so every row that is there keeps it: NOT VALID only spares the scan, new rows are checked.
ALTER TABLE write_operations DROP CONSTRAINT write_operations_kind_check;
ALTER TABLE write_operations ADD CONSTRAINT write_operations_kind_check
    CHECK (kind IN ('create', 'delete', 'update', 'undelete', 'purge', 'repair')) NOT VALID;
