//! The old tables go: first their names, then, much later, they themselves.

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};
use tracing::Instrument as _;

use super::{
    LOCK, Legacy, LegacyError,
    state::{self, Pass, State},
};

/// What to do with the old tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Rename,
    Restore,
    Drop,
}

/// Rows of V0.2's table, by this name, that are neither events nor in quarantine.
macro_rules! unaccounted {
    ($table:literal) => {
        concat!(
            "SELECT count(*) FROM public.",
            $table,
            " AS v
             WHERE NOT EXISTS (SELECT FROM event_store.event_ids AS i WHERE i.event_id = v.id)
               AND NOT EXISTS (SELECT FROM event_store.legacy_quarantine AS q
                               WHERE q.origin = 'events' AND q.event_id = v.id)"
        )
    };
}
/// The same of early V0.3's, which has no key.
macro_rules! unaccounted_v2 {
    ($table:literal) => {
        concat!(
            "SELECT count(*) FROM public.",
            $table,
            " AS v
             WHERE NOT EXISTS (SELECT FROM event_store.event_ids AS i WHERE i.event_id = v.id)
               AND NOT EXISTS (SELECT FROM event_store.legacy_quarantine AS q
                               WHERE q.origin = 'events_v2'
                                 AND q.row_hash = md5(to_jsonb(v)::text)::uuid)"
        )
    };
}

const RENAME: &str = "
    ALTER TABLE public.events RENAME TO events_retired;
    ALTER TABLE IF EXISTS public.events_v2 RENAME TO events_v2_retired;
    UPDATE event_store.legacy_migration SET renamed_at = now()";
const RESTORE: &str = "
    ALTER TABLE public.events_retired RENAME TO events;
    ALTER TABLE IF EXISTS public.events_v2_retired RENAME TO events_v2;
    INSERT INTO public.events (id, user_id, timestamp, type, data, source, correlation_id)
    SELECT event_id, user_id, occurred_at, event_type,
           data || jsonb_build_object('entityId', aggregate_id), source, correlation_id
    FROM event_store.events, event_store.legacy_migration
    -- With room for the transactions that were under way when the name went.
    WHERE recorded_at >= renamed_at - interval '1 hour'
      AND (metadata ->> 'legacy') IS DISTINCT FROM 'events_v2'
    ON CONFLICT DO NOTHING;
    UPDATE event_store.legacy_migration SET renamed_at = NULL, verified_at = NULL";
const DROP: &str = "
    DROP TABLE public.events_retired;
    DROP TABLE IF EXISTS public.events_v2_retired";

impl Legacy {
    /// Renames, restores or drops the old tables, if everything is so that this can be done.
    pub(crate) async fn retire(
        &self,
        step: Step,
        min_days: i32,
        dry_run: bool,
    ) -> Result<(), LegacyError> {
        let mut connection = self.admin.acquire().await?;
        let work = async move {
            let mut transaction = connection.begin().await?;
            // Who waits for the lock of a table has everybody behind it wait, too.
            sqlx::raw_sql("SET LOCAL lock_timeout = '3s'").execute(&mut *transaction).await?;
            sqlx::query("SELECT pg_advisory_xact_lock($1)")
                .bind(LOCK)
                .execute(&mut *transaction)
                .await?;
            check(&mut transaction, step, min_days).await?;
            if dry_run {
                return Ok(());
            }
            let sql = match step {
                Step::Rename => RENAME,
                Step::Restore => RESTORE,
                Step::Drop => DROP,
            };
            sqlx::raw_sql(sql).execute(&mut *transaction).await.map_err(in_use)?;
            transaction.commit().await?;
            Ok(())
        };
        let span = tracing::info_span!("db.legacy.retire");
        let outcome =
            tokio::spawn(work.instrument(span)).await.map_err(|_| sqlx::Error::WorkerCrashed)?;
        self.dual_write.forget();
        outcome
    }
}

/// What must hold.
async fn check(
    connection: &mut PgConnection,
    step: Step,
    min_days: i32,
) -> Result<(), LegacyError> {
    let refused = |why: &str| Err(LegacyError::NotReady(why.to_owned()));
    let state = State::load(connection).await?;
    let Some(state) = state.filter(|state| state.pass == Pass::Done) else {
        return refused("the old events are not all migrated: `synapctl migrate events`");
    };
    match (step, state.renamed_at) {
        (Step::Rename, None) => rename_is_safe(connection, &state).await,
        (Step::Rename, Some(_)) => refused("the old tables are renamed already"),
        (Step::Restore | Step::Drop, None) => refused("the old tables are not renamed"),
        (Step::Restore | Step::Drop, Some(renamed_at)) => {
            let (there, old_enough): (bool, bool) = sqlx::query_as(
                "SELECT to_regclass('public.events_retired') IS NOT NULL,
                        $1 <= now() - make_interval(days => $2)",
            )
            .bind(renamed_at)
            .bind(min_days)
            .fetch_one(&mut *connection)
            .await?;
            if !there {
                refused("the old tables are dropped")
            } else if step == Step::Drop && !old_enough {
                Err(too_young(renamed_at, min_days))
            } else if step == Step::Drop {
                drop_is_safe(connection).await
            } else {
                Ok(())
            }
        }
    }
}

fn too_young(renamed_at: DateTime<Utc>, min_days: i32) -> LegacyError {
    let why = format!("the old tables were renamed at {renamed_at}, less than {min_days} days ago");
    LegacyError::NotReady(why)
}

async fn rename_is_safe(connection: &mut PgConnection, state: &State) -> Result<(), LegacyError> {
    if state.verified_at.is_none() {
        let why = "no comparison since the migration has found every day the same: \
                   `synapctl migrate events --verify`";
        return Err(LegacyError::NotReady(why.to_owned()));
    }
    let mut rows: i64 =
        sqlx::query_scalar(unaccounted!("events")).fetch_one(&mut *connection).await?;
    if state::has_v2(connection).await? {
        let more = sqlx::query_scalar::<_, i64>(unaccounted_v2!("events_v2"));
        rows += more.fetch_one(connection).await?;
    }
    if rows > 0 {
        let why = format!(
            "{rows} old rows are neither migrated nor in quarantine: `synapctl migrate events`"
        );
        return Err(LegacyError::NotReady(why));
    }
    Ok(())
}

/// V0.2 may have written until the moment in which its table got another name. Nobody writes there
/// any more.
async fn drop_is_safe(connection: &mut PgConnection) -> Result<(), LegacyError> {
    let mut rows: i64 =
        sqlx::query_scalar(unaccounted!("events_retired")).fetch_one(&mut *connection).await?;
    if state::is_there(connection, "public.events_v2_retired").await? {
        let more = sqlx::query_scalar::<_, i64>(unaccounted_v2!("events_v2_retired"));
        rows += more.fetch_one(connection).await?;
    }
    if rows > 0 {
        let why = format!(
            "{rows} rows came into the old tables while they were renamed: \
             `synapctl events restore-legacy`, then `synapctl migrate events`"
        );
        return Err(LegacyError::NotReady(why));
    }
    Ok(())
}

fn in_use(error: sqlx::Error) -> LegacyError {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    if code.as_deref() == Some("55P03") {
        let why = "somebody holds the old tables; nothing was changed, try again".to_owned();
        return LegacyError::NotReady(why);
    }
    error.into()
}
