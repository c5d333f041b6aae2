//! Which entities have a body to upload, and under which key.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use synap_types::{BlobKey, EntityType, IdGenerator, UserId};
use uuid::Uuid;

use super::{
    super::{Store, rows},
    release,
};
use crate::{
    domain::{Among, Claim, Looked, MAX_MIGRATED_BYTES, Notable, Phase, Released, Wanted},
    error::Error,
};

/// Entities that are looked at in one call at most. Most of a second run has nothing to do.
const PAGE: i64 = 1_000;

const PHASE: &str = "SELECT phase FROM storage_phase WHERE only_row";

/// What those left behind who do not answer any more: theirs comes first, under the key it had.
const TAKE_OVER: &str = "
    WITH due AS (
        SELECT entity_id FROM content_migrations m
        WHERE state = 'claimed' AND lease_until < statement_timestamp()
          AND ($4::text IS NULL OR (SELECT count(*) FROM entities e
                                    WHERE e.id = m.entity_id AND e.user_id = $4) > 0)
        ORDER BY lease_until
        LIMIT $1
        FOR UPDATE SKIP LOCKED
    )
    UPDATE content_migrations m
    SET claimant = $2, lease_until = clock_timestamp() + make_interval(secs => $3),
        updated_at = clock_timestamp()
    FROM due
    WHERE m.entity_id = due.entity_id
    RETURNING m.entity_id, m.key, m.version, m.file_path, m.block_xmin";

const NEXT: &str = "SELECT id FROM entities WHERE id > $1 ORDER BY id LIMIT $2";

/// Materialized: else a user who owns little has the whole table walked in the order of ids.
const NEXT_OF_USER: &str = "
    WITH own AS MATERIALIZED (SELECT id FROM entities WHERE user_id = $3 AND id > $1)
    SELECT id FROM own ORDER BY id LIMIT $2";

/// What an entity needs. A path that has the entity's id as a folder is of this release, which puts a
/// path into a row only when its object is there; any other is vouched for by whoever has looked. The
/// length of a text is known without reading it.
const FACTS: &str = "
    SELECT e.id, e.user_id, e.type, e.version, e.file_path, b.xmin::text AS block_xmin,
           octet_length(b.content)::int8 AS size, b.content_type, m.state, m.failure, m.detail,
           CASE
               WHEN e.file_path IS NOT NULL
                    AND (octet_length(b.content) > 0 IS NOT TRUE
                         OR strpos(e.file_path, format('/%s/', e.id)) > 0
                         OR (SELECT count(*) FROM file_checks c
                             WHERE c.entity_id = e.id AND c.key = e.file_path
                               AND c.outcome = 'sound') > 0) THEN 'already_migrated'
               WHEN b.entity_id IS NULL THEN 'skipped_missing_row'
               WHEN octet_length(b.content) > 0 THEN NULL
               WHEN b.storage_provider <> 'db' THEN 'skipped_elsewhere'
               ELSE 'skipped_empty'
           END AS outcome
    FROM entities e
    LEFT JOIN content_blocks b ON b.entity_id = e.id
    LEFT JOIN content_migrations m ON m.entity_id = e.id
    WHERE e.id = ANY ($1) AND ($2::timestamptz IS NULL OR e.updated_at >= $2)
    ORDER BY e.id";

/// Each entity is one holder's. What has failed is taken only by whoever was told to: others have not
/// asked for it.
const CLAIM: &str = "
    INSERT INTO content_migrations AS m (entity_id, state, key, claimant, lease_until, version,
                                         file_path, block_xmin, failure)
    SELECT i.entity_id, CASE WHEN i.key IS NULL THEN 'failed' ELSE 'claimed' END, i.key, $1,
           clock_timestamp() + make_interval(secs => $2), i.version, i.file_path, i.block_xmin,
           i.failure
    FROM unnest($3::uuid[], $4::text[], $5::int4[], $6::text[], $7::text[], $8::text[])
         AS i (entity_id, key, version, file_path, block_xmin, failure)
    ON CONFLICT (entity_id) DO UPDATE
    SET state = excluded.state, key = excluded.key, claimant = excluded.claimant,
        lease_until = excluded.lease_until, version = excluded.version,
        file_path = excluded.file_path, block_xmin = excluded.block_xmin,
        failure = excluded.failure, detail = NULL, updated_at = clock_timestamp()
    WHERE m.state = 'failed'
    RETURNING m.entity_id";

/// An entity and its content block, as far as it matters here.
struct Facts {
    id: Uuid,
    user_id: String,
    entity_type: String,
    was: Was,
    size: i64,
    content_type: String,
    /// `claimed` or `failed`.
    state: Option<String>,
    failure: String,
    detail: String,
    /// Why there is nothing to do.
    outcome: Option<String>,
}

/// What a key was made for.
#[derive(PartialEq)]
struct Was {
    version: i32,
    file_path: Option<String>,
    block_xmin: Option<String>,
}

/// A body that wants a key, or cannot have one.
struct Candidate {
    facts: Facts,
    key: Result<BlobKey, &'static str>,
}

impl Store {
    /// Looks at the next entities, and claims those that have a body to upload. Bodies whose holder
    /// died come first.
    ///
    /// # Errors
    /// [`Error::WrongPhase`]: bodies are uploaded in the phase dual_write.
    #[tracing::instrument(name = "db.content_migration.claim", skip_all, err(level = "debug"))]
    pub async fn claim_bodies(&self, wanted: &Wanted) -> Result<Looked, Error> {
        let mut connection = self.database.across_users().await?;
        let current = rows::phase(&sqlx::query(PHASE).fetch_one(&mut *connection).await?)?;
        // Whoever only looks needs content_blocks, and nothing else.
        let only_looks = wanted.dry_run && current != Phase::LegacyDropped;
        if current != Phase::DualWrite && !only_looks {
            return Err(Error::WrongPhase { current });
        }
        let mut looked = Looked::default();
        let mut candidates = Vec::new();
        let mut taken = HashSet::new();
        if !wanted.dry_run {
            taken = self.take_over(&mut connection, wanted, &mut looked, &mut candidates).await?;
        }
        let ids = match &wanted.among {
            Among::These(ids) => {
                looked.done = true;
                ids.clone()
            }
            Among::After(after) => {
                let ids = next(&mut connection, *after, wanted.user.as_deref()).await?;
                looked.done = i64::try_from(ids.len()).is_ok_and(|count| count < PAGE);
                ids
            }
        };
        looked.last = ids.last().copied();
        let all = facts(&mut connection, &ids, wanted.since).await?;
        for facts in all {
            if looked.claims.len() + candidates.len() >= wanted.limit {
                // The next call begins with this one.
                looked.done = false;
                break;
            }
            looked.last = Some(facts.id);
            looked.entities += 1;
            if taken.contains(&facts.id) {
                continue;
            }
            if let Some(candidate) = looked.sort(facts, wanted, &*self.beginner.ids) {
                candidates.push(candidate);
            }
        }
        let lease = self.times.lease(None).as_secs_f64();
        looked.claim(&mut connection, candidates, wanted, lease).await?;
        Ok(looked)
    }

    /// A body that is what it was keeps its key: it may be there already. Any other key is given up.
    /// Answers whose bodies are handed out now.
    async fn take_over(
        &self,
        connection: &mut PgConnection,
        wanted: &Wanted,
        looked: &mut Looked,
        candidates: &mut Vec<Candidate>,
    ) -> Result<HashSet<Uuid>, Error> {
        let taken = sqlx::query(TAKE_OVER)
            .bind(i64::try_from(wanted.limit).unwrap_or(i64::MAX))
            .bind(wanted.claimant)
            .bind(self.times.lease(None).as_secs_f64())
            .bind(&wanted.user)
            .fetch_all(&mut *connection)
            .await?;
        if taken.is_empty() {
            return Ok(HashSet::new());
        }
        let mut keys = HashMap::with_capacity(taken.len());
        for row in &taken {
            let key: String = row.try_get("key")?;
            keys.insert(row.try_get::<Uuid, _>("entity_id")?, (key, was(row)?));
        }
        let ids: Vec<Uuid> = keys.keys().copied().collect();
        let (mut ours, mut changed) = (HashSet::new(), Vec::new());
        for facts in facts(connection, &ids, None).await? {
            let Some((key, then)) = keys.remove(&facts.id) else { continue };
            let key =
                BlobKey::parse(key).map_err(|why| rows::corrupt("content_migrations", why))?;
            if facts.outcome.is_none() {
                ours.insert(facts.id);
            }
            if facts.outcome.is_none() && facts.was == then {
                looked.claims.push(facts.claim(key, true));
                continue;
            }
            changed.push(released(facts.id, key.as_str()));
            if facts.outcome.is_none() {
                let key = facts.fresh_key(&*self.beginner.ids);
                candidates.push(Candidate { facts, key });
            }
        }
        changed.extend(keys.iter().map(|(id, (key, _))| released(*id, key)));
        release::release(connection, &changed, self.times.blob_settle_secs).await?;
        Ok(ours)
    }
}

fn released(entity_id: Uuid, key: &str) -> Released {
    Released { entity_id, key: key.to_owned(), failure: None }
}

async fn next(
    connection: &mut PgConnection,
    after: Uuid,
    user: Option<&str>,
) -> Result<Vec<Uuid>, Error> {
    let query = match user {
        Some(user) => sqlx::query_scalar(NEXT_OF_USER).bind(after).bind(PAGE).bind(user),
        None => sqlx::query_scalar(NEXT).bind(after).bind(PAGE),
    };
    Ok(query.fetch_all(connection).await?)
}

async fn facts(
    connection: &mut PgConnection,
    ids: &[Uuid],
    since: Option<DateTime<Utc>>,
) -> Result<Vec<Facts>, Error> {
    let rows = sqlx::query(FACTS).bind(ids).bind(since).fetch_all(connection).await?;
    rows.iter().map(Facts::of).collect()
}

fn was(row: &PgRow) -> Result<Was, Error> {
    Ok(Was {
        version: row.try_get("version")?,
        file_path: row.try_get("file_path")?,
        block_xmin: row.try_get("block_xmin")?,
    })
}

impl Facts {
    fn of(row: &PgRow) -> Result<Self, Error> {
        let text = |column: &str| {
            Ok::<_, Error>(row.try_get::<Option<String>, _>(column)?.unwrap_or_default())
        };
        Ok(Self {
            id: row.try_get("id")?,
            user_id: row.try_get("user_id")?,
            entity_type: row.try_get("type")?,
            was: was(row)?,
            size: row.try_get::<Option<i64>, _>("size")?.unwrap_or_default(),
            content_type: text("content_type")?,
            state: row.try_get("state")?,
            failure: text("failure")?,
            detail: text("detail")?,
            outcome: row.try_get("outcome")?,
        })
    }

    /// A key that nobody has used; or why there can be none, in a word.
    fn fresh_key(&self, ids: &dyn IdGenerator) -> Result<BlobKey, &'static str> {
        if self.size > MAX_MIGRATED_BYTES {
            return Err("too_large");
        }
        let user = UserId::parse(&*self.user_id).map_err(|_| "user_id")?;
        let entity_type = EntityType::parse(&*self.entity_type).map_err(|_| "entity_type")?;
        BlobKey::revision(&user, &entity_type, self.id, ids.next_id(), "md").map_err(|_| "key")
    }

    fn claim(self, key: BlobKey, resumed: bool) -> Claim {
        Claim {
            entity_id: self.id,
            user_id: self.user_id,
            key,
            size: self.size,
            resumed,
            existing: self.was.file_path.and_then(|path| BlobKey::parse(path).ok()),
            content_type: Some(self.content_type).filter(|named| named != "markdown"),
        }
    }

    fn notable(&self, outcome: String) -> Notable {
        let (entity_id, user_id) = (self.id, self.user_id.clone());
        Notable { entity_id, user_id, outcome, detail: self.detail.clone() }
    }
}

impl Looked {
    /// Counts an entity, or finds that it has a body to upload.
    fn sort(&mut self, facts: Facts, wanted: &Wanted, ids: &dyn IdGenerator) -> Option<Candidate> {
        let outcome = match (&facts.outcome, facts.state.as_deref()) {
            (None, Some("claimed")) if !wanted.dry_run => {
                self.held.push(facts.id);
                return None;
            }
            (None, Some("failed")) if !wanted.retry_failed => format!("failed:{}", facts.failure),
            (None, _) => {
                let key = facts.fresh_key(ids);
                return Some(Candidate { facts, key });
            }
            (Some(outcome), _) => outcome.clone(),
        };
        self.count(&facts, outcome);
        None
    }

    fn count(&mut self, facts: &Facts, outcome: String) {
        if outcome == "skipped_elsewhere" || outcome.starts_with("failed:") {
            self.notables.push(facts.notable(outcome.clone()));
        }
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// Records the keys: from here on they may be written to.
    async fn claim(
        &mut self,
        connection: &mut PgConnection,
        mut candidates: Vec<Candidate>,
        wanted: &Wanted,
        lease_secs: f64,
    ) -> Result<(), Error> {
        // Rows are locked in one order by all who do this.
        candidates.sort_unstable_by_key(|candidate| candidate.facts.id);
        let got: Vec<Uuid> = if wanted.dry_run || candidates.is_empty() {
            candidates.iter().map(|candidate| candidate.facts.id).collect()
        } else {
            let all = || candidates.iter();
            sqlx::query_scalar(CLAIM)
                .bind(wanted.claimant)
                .bind(lease_secs)
                .bind(all().map(|one| one.facts.id).collect::<Vec<_>>())
                .bind(all().map(|one| Some(one.key.as_ref().ok()?.as_str())).collect::<Vec<_>>())
                .bind(all().map(|one| one.facts.was.version).collect::<Vec<_>>())
                .bind(all().map(|one| one.facts.was.file_path.as_deref()).collect::<Vec<_>>())
                .bind(all().map(|one| one.facts.was.block_xmin.as_deref()).collect::<Vec<_>>())
                .bind(all().map(|one| one.key.as_ref().err().copied()).collect::<Vec<_>>())
                .fetch_all(connection)
                .await?
        };
        for Candidate { facts, key } in candidates {
            match key {
                _ if !got.contains(&facts.id) => self.held.push(facts.id),
                Ok(key) => self.claims.push(facts.claim(key, false)),
                Err(failure) => self.count(&facts, format!("failed:{failure}")),
            }
        }
        Ok(())
    }
}
