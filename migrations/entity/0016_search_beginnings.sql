-- `begin*` finds every word that has a form which begins so. 0011 stemmed the beginning as if it were
-- a word: ony* was oni*, which finds onions and no onyx; the* was nothing, as "the" is; and runn* did
-- not find "running", whose document has "run". Documents stay as they are: a stem that does not begin
-- so is asked for by itself.

-- What was typed before the `*`, in the quotes of a tsquery. Where it ends within an ending that the
-- language drops, it is completed and stemmed: runn(ing) is "run", organiza(tion) "organ". The endings
-- are those that English drops; of other languages it is only stemmed as it is. More than one word, as
-- deep-sea* is to the parser, is a phrase of beginnings.
CREATE FUNCTION synap_search_beginning(typed text, language regconfig) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    SELECT CASE cardinality(words)
        WHEN 1 THEN (
            SELECT concat_ws(' | ', quote_literal(words[1]) || ':*',
                             string_agg(quote_literal(stem), ' | '))::tsquery
            FROM (
                SELECT string_agg(DISTINCT words[1] || right(ending, kept), ' ') AS forms
                FROM string_to_table('ability able al ance ancy ant ate ation ed ence ency ent er '
                                     'es ful ible ic ies ing ism ist ity ive ize less ly ment ness '
                                     'ogy ous', ' ') AS ending,
                     generate_series(0, length(ending)) AS kept
            ) AS completed,
            unnest(tsvector_to_array(to_tsvector(language, forms))) AS stem
            WHERE NOT starts_with(stem, words[1]))
        ELSE to_tsquery(language, typed || ':*')
    END
    FROM (SELECT tsvector_to_array(to_tsvector('pg_catalog.simple', typed)) AS words) AS w
);

-- As before: the terms that entity-service writes, quoted, with `!` before and `:*` after them, and `&`
-- or `|` between. But each is made a query by itself. One that is nothing to the language is left out;
-- PostgreSQL has a notice for each of those, which nobody needs.
CREATE OR REPLACE FUNCTION synap_search_query(words text, language regconfig) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET client_min_messages = warning
RETURN coalesce((
    SELECT string_agg(every, ' | ')
    FROM (
        SELECT string_agg(format('%s(%s)', sign, term), ' & ') AS every
        FROM (
            SELECT piece[2] AS sign,
                   CASE WHEN piece[4] IS NULL THEN to_tsquery(language, piece[3])
                        ELSE synap_search_beginning(piece[3], language) END AS term,
                   count(*) FILTER (WHERE piece[1] = '|') OVER (ORDER BY place) AS side
            FROM regexp_matches(words, $re$(\|?) ?(!?)('(?:[^']|'')*')(:\*)?$re$, 'g')
                WITH ORDINALITY AS found (piece, place)
        ) AS terms
        WHERE numnode(term) > 0
        GROUP BY side
    ) AS sides
), '')::tsquery;

-- As 0011 has it, but each table is asked by itself: OFFSET 0 keeps the planner from making one join of
-- it all. A plan that was made while the tables were empty, and is kept, else walks all entities by
-- their key and looks at all documents for each.
DO $do$
BEGIN
    EXECUTE format($create$
        CREATE OR REPLACE FUNCTION synap_search(words text, language regconfig, kind text,
                                                ranked bigint, before_score real, before_id uuid,
                                                size bigint)
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
                SELECT e.id
                FROM asked a,
                     LATERAL (SELECT s.entity_id FROM entity_search s
                              WHERE s.document @@ a.own_words AND s.user_id = a.user_id
                              OFFSET 0) AS s,
                     LATERAL (SELECT e.id, e.created_at FROM entities e
                              WHERE e.id = s.entity_id
                                AND (e.user_id = a.user_id AND e.type = kind
                                     AND e.deleted_at IS NULL) IS TRUE
                              OFFSET 0) AS e
                ORDER BY e.created_at DESC, e.id DESC
                LIMIT ranked
            ),
            hits AS MATERIALIZED (
                SELECT n.id, (SELECT ts_rank_cd(s.document, a.words) FROM entity_search s
                              WHERE s.entity_id = n.id) AS score
                FROM asked a, newest n
            )
            SELECT h.id, h.score FROM hits h
            WHERE before_id IS NULL OR (h.score, h.id) < (before_score, before_id)
            ORDER BY h.score DESC, h.id DESC
            LIMIT size
        $body$$create$, current_schema());
END
$do$;
