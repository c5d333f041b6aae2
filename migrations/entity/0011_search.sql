-- Full text search over title, tags and the beginning of the body, and vectors in several versions.

-- One document an entity, written in the pivot that writes the entity. What was there before this
-- table gets its documents from `synapctl migrate`, not from here (rule 3). A deleted entity keeps
-- its document: searches leave it out, and an undelete has nothing to do.
CREATE TABLE entity_search (
    entity_id uuid PRIMARY KEY REFERENCES entities ON DELETE CASCADE,
    user_id   text NOT NULL,
    document  tsvector NOT NULL
);

-- A search is one user's: the document has a lexeme of its own for the user, so that the index
-- intersects user and words, without an extension. No parser makes a lexeme that begins so, and no
-- prefix that somebody types finds it. Two users with one lexeme would only cost time: user_id is
-- compared too.
CREATE FUNCTION synap_search_owner(owner text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN E'\x01' || left(encode(sha256(convert_to(owner, 'UTF8')), 'hex'), 16);

-- The configuration of this name, or `simple`: words as they are.
CREATE FUNCTION synap_search_language(name text) RETURNS regconfig
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN coalesce((SELECT oid FROM pg_catalog.pg_ts_config
                 WHERE cfgname = name AND cfgnamespace = 'pg_catalog'::regnamespace)::regconfig,
                'pg_catalog.simple'::regconfig);

-- The document of an entity. The body's beginning is enough, and must be short: a document has 1 MB
-- at most, which 64 KiB of any text stay below, and positions end at 16,383.
CREATE FUNCTION synap_search_document(owner text, title text, body text, tags text[],
                                      language regconfig) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN setweight(to_tsvector(language, coalesce(title, '')), 'A')
    || setweight(to_tsvector(language, coalesce(array_to_string(tags, E'\n'), '')), 'B')
    || setweight(to_tsvector(language, coalesce(body, '')), 'C')
    || array_to_tsvector(ARRAY[synap_search_owner(owner)]);

-- The document with another title and other tags: the body, which may be in no table, is kept.
CREATE FUNCTION synap_search_retitled(document tsvector, owner text, title text, tags text[],
                                      language regconfig) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN synap_search_document(owner, title, NULL, tags, language) || ts_filter(document, '{c}');

-- Inserts go to a list first that is merged when it is full: a short one, because every search
-- reads it, and whoever fills it waits.
CREATE INDEX entity_search_document_idx ON entity_search USING gin (document)
    WITH (gin_pending_list_limit = 1024);

-- What a user typed, as a query. Empty (numnode 0) where nothing of it can be searched for.
CREATE FUNCTION synap_search_query(words text, language regconfig) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN to_tsquery(language, words);

-- The wall, as 0006 builds it for every table of users.
GRANT SELECT, INSERT, UPDATE, DELETE ON entity_search TO synap_entity;
ALTER TABLE entity_search ENABLE ROW LEVEL SECURITY;
CREATE POLICY entity_service_let_in ON entity_search TO synap_entity USING (true);
CREATE POLICY entity_service_wall ON entity_search AS RESTRICTIVE TO synap_entity
    USING ((user_id = ANY ((SELECT synap_current_users())::text[])) IS TRUE);

-- The only way to search. Row-level security would keep `@@`, which is not leakproof, from using
-- the index; so this runs as the owner and looks only at the rows of app.current_user_id: whoever
-- calls it cannot ask for another's. Ranks the newest `ranked` matches, so that a common word in a
-- large account costs what a rare one does. (before_score, before_id) is where the last page ended.
DO $do$
BEGIN
    EXECUTE format($create$
        CREATE FUNCTION synap_search(words text, language regconfig, kind text, ranked bigint,
                                     before_score real, before_id uuid, size bigint)
        RETURNS TABLE (entity_id uuid, score real)
        LANGUAGE sql STABLE SECURITY DEFINER
        SET search_path = pg_catalog, %1$I, pg_temp
        AS $body$
            WITH asked AS MATERIALIZED (
                SELECT q AS words,
                       q && quote_literal(synap_search_owner(u))::tsquery AS own_words, u AS user_id
                FROM synap_search_query(words, language) AS q,
                     current_setting('app.current_user_id', true) AS u
                WHERE numnode(q) > 0
            ),
            newest AS MATERIALIZED (
                SELECT s.entity_id
                FROM asked a
                JOIN entity_search s ON s.document @@ a.own_words AND s.user_id = a.user_id
                JOIN entities e ON e.id = s.entity_id
                WHERE (e.user_id = a.user_id AND e.type = kind AND e.deleted_at IS NULL) IS TRUE
                ORDER BY e.created_at DESC, e.id DESC
                LIMIT ranked
            ),
            hits AS MATERIALIZED (
                SELECT s.entity_id, ts_rank_cd(s.document, a.words) AS score
                FROM asked a, newest n JOIN entity_search s ON s.entity_id = n.entity_id
            )
            SELECT h.entity_id, h.score FROM hits h
            WHERE before_id IS NULL OR (h.score, h.entity_id) < (before_score, before_id)
            ORDER BY h.score DESC, h.entity_id DESC
            LIMIT size
        $body$$create$, current_schema());
END
$do$;
REVOKE ALL ON FUNCTION synap_search FROM PUBLIC;
GRANT EXECUTE ON FUNCTION synap_search TO synap_entity;

-- Several vectors an entity: one for each model and part of the text. A constant default rewrites
-- nothing. 0012 and 0013 make it part of the key.
ALTER TABLE entity_vectors ADD COLUMN chunk integer NOT NULL DEFAULT 0;
