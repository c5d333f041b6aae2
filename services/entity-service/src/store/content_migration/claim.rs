//! Which entities have a body to upload, and under which key.

use std::collections::{HashMap, HashSet};

use sqlx::{PgConnection, Row as _};
use synap_types::{BlobKey, IdGenerator};
use uuid::Uuid;

use super::{
    super::{Store, phase, rows},
    facts::{Facts, facts, next, was},
    release,
};
use crate::{
    domain::{Among, Looked, Phase, Released, Wanted},
    error::Error,
};

/// Entities that are looked at in one call at most. Most of a second run has nothing to do.
const PAGE: i64 = 1_000;

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
        let current = phase::find(&mut connection).await?;
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
        let ids = &*self.beginner.ids;
        match &wanted.among {
            Among::These(these) => {
                let all = facts(&mut connection, these, None).await?;
                looked.done = looked.sort_all(all, &taken, wanted, ids, &mut candidates);
            }
            Among::After(after) => {
                let (mut after, mut size, mut seen) = (*after, count(wanted.limit), 0);
                looked.last = Some(after);
                loop {
                    let next = next(&mut connection, after, size, wanted.user.as_deref()).await?;
                    let all = facts(&mut connection, &next, wanted.since).await?;
                    let all = looked.sort_all(all, &taken, wanted, ids, &mut candidates);
                    looked.done = all && count(next.len()) < size;
                    seen += count(next.len());
                    if all {
                        looked.last = next.last().copied().or(looked.last);
                    }
                    let found = looked.claims.len() + candidates.len() > 0;
                    if found || looked.done || !all || seen >= PAGE {
                        break;
                    }
                    // Nothing to do here: nor, it may be, for a while.
                    (after, size) = (looked.last.unwrap_or(after), PAGE);
                }
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
            .bind(count(wanted.limit))
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

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn released(entity_id: Uuid, key: &str) -> Released {
    Released { entity_id, key: key.to_owned(), failure: None }
}

impl Looked {
    /// Sorts entities until there are as many bodies as are wanted; tells whether it came to the end.
    fn sort_all(
        &mut self,
        all: Vec<Facts>,
        taken: &HashSet<Uuid>,
        wanted: &Wanted,
        ids: &dyn IdGenerator,
        candidates: &mut Vec<Candidate>,
    ) -> bool {
        for facts in all {
            if self.claims.len() + candidates.len() >= wanted.limit {
                return false;
            }
            self.last = Some(facts.id);
            self.entities += 1;
            if !taken.contains(&facts.id) {
                candidates.extend(self.sort(facts, wanted, ids));
            }
        }
        true
    }

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
