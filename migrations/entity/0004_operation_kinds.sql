-- Reads the table while writers go on.
ALTER TABLE write_operations VALIDATE CONSTRAINT write_operations_kind_check;
