//! Searches by words, and the snippets that show what was found.

use sqlx::Row as _;
use synap_types::UserId;

use super::{Store, rows};
use crate::{
    domain::{Hit, Search, words},
    error::Error,
};

/// Of more matches only the newest are ranked: a search for a common word in a large account costs
/// what this many cost.
const RANKED: i64 = 2000;

/// `synap_search` finds; this adds what the hits are. OFFSET 0 keeps each of them asked for by its key:
/// a join could become a walk along all entities, in a plan that was made while there were none.
const SEARCH: &str = "
    SELECT e.id, e.user_id, e.type, e.title, e.preview, e.tags, e.file_url, e.file_path,
           e.file_size, e.file_type, e.checksum, e.file_name, e.version, e.created_at,
           e.updated_at, e.deleted_at, f.score
    FROM synap_search($2, synap_search_language($3), $4, $5, $6, $7, $8) f,
         LATERAL (SELECT * FROM entities WHERE id = f.entity_id AND (user_id = $1) IS TRUE
                  OFFSET 0) AS e
    ORDER BY f.score DESC, f.entity_id DESC";

/// Bold, as Markdown has it: a snippet is text, not HTML.
const SNIPPETS: &str = "
    WITH asked AS MATERIALIZED (
        SELECT l, synap_search_query($2, l) AS words FROM synap_search_language($3) AS l
    )
    SELECT ts_headline(l, coalesce(body, ''), words,
                       'StartSel=\"**\", StopSel=\"**\", FragmentDelimiter=\" … \", \
                        MaxFragments=2, MinWords=8, MaxWords=24, ShortWord=0')
    FROM asked, unnest($1::text[]) WITH ORDINALITY AS t (body, place)
    ORDER BY place";

impl Store {
    /// Searches the entities of one user by words, the best first.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.entity.search", skip_all, err(level = "debug"))]
    pub async fn search(&self, search: &Search) -> Result<Vec<Hit>, Error> {
        let query = words::to_tsquery(&search.typed);
        if query.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.database.for_user(&search.user).await?;
        let found = sqlx::query(SEARCH)
            .bind(search.user.as_str())
            .bind(query)
            .bind(&self.search.language)
            .bind(search.entity_type.as_str())
            .bind(RANKED)
            .bind(search.after.map(|after| after.score))
            .bind(search.after.map(|after| after.id))
            .bind(search.limit)
            .fetch_all(&mut *transaction)
            .await?;
        let hit = |row| Ok(Hit { entity: rows::entity(row)?, score: row.try_get("score")? });
        found.iter().map(hit).collect()
    }

    /// A snippet of each text, with what was typed in bold.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.search.snippets", skip_all, err(level = "debug"))]
    pub async fn snippets(
        &self,
        user: &UserId,
        typed: &str,
        texts: &[String],
    ) -> Result<Vec<String>, Error> {
        let query = words::to_tsquery(typed);
        if query.is_empty() {
            return Ok(texts.iter().map(|_| String::new()).collect());
        }
        let mut transaction = self.database.for_user(user).await?;
        let snippets = sqlx::query_scalar(SNIPPETS)
            .bind(texts)
            .bind(query)
            .bind(&self.search.language)
            .fetch_all(&mut *transaction)
            .await?;
        Ok(snippets)
    }
}
