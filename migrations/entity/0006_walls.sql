-- The second wall between users. Every statement of entity-service names its user; a transaction for
-- a user also runs as a role that does not own the tables, so that row-level security shows it the
-- rows of that user and no others, whatever the statement says or forgets (docs/walls.md).

-- A role belongs to the whole server: other databases on it may have made it, or be making it now.
DO $$
DECLARE
    may_become boolean;
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'synap_entity') THEN
            CREATE ROLE synap_entity NOLOGIN;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END;
    -- Since PostgreSQL 16 a member may have been granted the role without the right to become it.
    IF current_setting('server_version_num')::int >= 160000 THEN
        may_become := pg_has_role(current_user, 'synap_entity', 'SET');
    ELSE
        may_become := pg_has_role(current_user, 'synap_entity', 'MEMBER');
    END IF;
    IF NOT may_become THEN
        BEGIN
            GRANT synap_entity TO current_user;
        EXCEPTION WHEN unique_violation OR internal_error THEN
            -- "tuple concurrently updated": another database's migration does the same.
            NULL;
        END;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'the role synap_entity is missing or not granted to %, who may not change that;'
        ' run by hand, as a role that may: CREATE ROLE synap_entity NOLOGIN; (unless it is there)'
        ' GRANT synap_entity TO %; then start again',
        current_user, quote_ident(current_user)
        USING ERRCODE = 'insufficient_privilege';
END
$$;

-- Tables may be in a schema of their own.
DO $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO synap_entity', current_schema());
END
$$;
GRANT SELECT, INSERT, UPDATE, DELETE ON entities, entity_revisions, entity_vectors, content_blocks
    TO synap_entity;
-- Forgetting operations and handing out deletions is done across users, by the owner.
GRANT SELECT, INSERT, UPDATE ON write_operations TO synap_entity;
GRANT INSERT, SELECT (key) ON blob_gc TO synap_entity;
GRANT SELECT ON storage_phase TO synap_entity;

-- Whose a block is, as far as it is written from now on: a policy that asked for the block's entity
-- could not see the one that is written in the same statement.
ALTER TABLE content_blocks ADD COLUMN user_id text;

-- The users of the transaction: a batch has several. None where it has not said whose it is: a
-- setting that an earlier transaction had made is empty then, not null.
CREATE FUNCTION synap_current_users() RETURNS text[] LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(nullif(current_setting('app.current_user_ids', true), '')::text[],
                    ARRAY[nullif(current_setting('app.current_user_id', true), '')])
$$;

-- Policies that let in are joined by OR: those that V0.2 left stay, whatever they say, and ours lets
-- the service in to everything. The wall is the policies that keep out: they hold beside any other.
-- The SELECT around the function has it evaluated once in a statement, not once for each row. IS TRUE
-- keeps the planner from reading all rows of a user by an index on user_id, where a statement names
-- the one row that it wants by a longer key.
ALTER TABLE entities ENABLE ROW LEVEL SECURITY;
ALTER TABLE entity_revisions ENABLE ROW LEVEL SECURITY;
ALTER TABLE entity_vectors ENABLE ROW LEVEL SECURITY;
ALTER TABLE content_blocks ENABLE ROW LEVEL SECURITY;
ALTER TABLE write_operations ENABLE ROW LEVEL SECURITY;
CREATE POLICY entity_service_let_in ON entities TO synap_entity USING (true);
CREATE POLICY entity_service_let_in ON entity_revisions TO synap_entity USING (true);
CREATE POLICY entity_service_let_in ON entity_vectors TO synap_entity USING (true);
CREATE POLICY entity_service_let_in ON content_blocks TO synap_entity USING (true);
CREATE POLICY entity_service_let_in ON write_operations TO synap_entity USING (true);
CREATE POLICY entity_service_wall ON entities AS RESTRICTIVE TO synap_entity
    USING ((user_id = ANY ((SELECT synap_current_users())::text[])) IS TRUE);
CREATE POLICY entity_service_wall ON entity_revisions AS RESTRICTIVE TO synap_entity
    USING ((user_id = ANY ((SELECT synap_current_users())::text[])) IS TRUE);
CREATE POLICY entity_service_wall ON entity_vectors AS RESTRICTIVE TO synap_entity
    USING ((user_id = ANY ((SELECT synap_current_users())::text[])) IS TRUE);
CREATE POLICY entity_service_wall ON write_operations AS RESTRICTIVE TO synap_entity
    USING ((user_id = ANY ((SELECT synap_current_users())::text[])) IS TRUE);
-- A block of V0.2 is its entity's user's. A new one says whose it is.
CREATE POLICY entity_service_wall ON content_blocks AS RESTRICTIVE TO synap_entity
    USING ((user_id = ANY ((SELECT synap_current_users())::text[])
            OR user_id IS NULL
               AND EXISTS (SELECT FROM entities e
                           WHERE e.id = entity_id
                             AND (e.user_id = ANY ((SELECT synap_current_users())::text[]))
                                 IS TRUE)) IS TRUE);
