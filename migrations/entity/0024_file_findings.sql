-- What is known to be wrong is asked for every minute (`synapctl monitor`), and is little. Not built
-- concurrently: the table is of this release, and has no rows before it.
CREATE INDEX file_checks_findings_idx ON file_checks (outcome) WHERE outcome <> 'sound';
