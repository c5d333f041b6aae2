-- Bodies of content_blocks on their way into the object store, and those that could not go
-- (docs/content-migration.md). A row is here before its object is written, and goes with the
-- transaction that has the entity name the object: what is not here is migrated, or was never tried.
CREATE TABLE content_migrations (
    -- No foreign key: of an entity that is purged meanwhile the key must not be forgotten.
    entity_id   uuid PRIMARY KEY,
    -- Whether somebody is at it, or it failed for good and waits for a person.
    state       text NOT NULL CHECK (state IN ('claimed', 'failed')),
    -- Where the object will be; of a row that has failed it is given up.
    key         text CHECK ((key IS NULL) = (state = 'failed')),
    -- Which run of the command holds it, and until when by the database's clock.
    claimant    uuid NOT NULL,
    lease_until timestamptz NOT NULL,
    -- The entity as it was when the key was made. If it is another by now, so is the key.
    version     integer NOT NULL,
    file_path   text,
    -- xmin of the row of content_blocks: another after each change, whoever makes it.
    block_xmin  text NOT NULL,
    -- Why it failed, in one word and in the words of whoever said so.
    failure     text,
    detail      text,
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What a run that died has left behind is taken over first.
CREATE INDEX content_migrations_lease_idx ON content_migrations (lease_until)
    WHERE state = 'claimed';
