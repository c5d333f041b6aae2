-- What a look at an entity's object in the store found, the last time somebody looked. A key is written
-- once, so a look is of one body: where the entity names another key by now, the row says nothing.
-- A table of its own: the rows of entities are written by users, and these by whoever verifies.
CREATE TABLE file_checks (
    entity_id        uuid PRIMARY KEY REFERENCES entities ON DELETE CASCADE,
    -- The object that was looked at.
    key              text NOT NULL,
    -- Whether it was read to its end, or only asked for.
    level            text NOT NULL CHECK (level IN ('head', 'checksum')),
    outcome          text NOT NULL CHECK (outcome IN
                         ('sound', 'missing', 'size_differs', 'checksum_differs')),
    checked_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When all of it was last read and was what the row says.
    file_verified_at timestamptz
);
CREATE INDEX file_checks_checked_at_idx ON file_checks (checked_at);
