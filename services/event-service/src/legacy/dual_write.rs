//! Appends that also write to the table of V0.2, while it is there.

use std::{
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use sqlx::PgConnection;
use tokio::time::Instant;

use crate::store::DatabaseError;

/// The table may be given its name back by way of another replica: an append looks again so often.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// Whether there is a table `events` in the shape of V0.2 that this role may write to, all of it:
/// under row-level security it would see and write only rows of a user that nobody has named.
pub(crate) const PROBE: &str = "
    SELECT count(*) = 7 AND bool_and(has_table_privilege(a.attrelid, 'SELECT')
                                     AND has_table_privilege(a.attrelid, 'INSERT')
                                     AND NOT row_security_active(a.attrelid)) IS TRUE
    FROM (VALUES ('id', 'uuid'), ('user_id', 'text'), ('timestamp', 'timestamptz'), ('type', 'text'),
                 ('data', 'jsonb'), ('source', 'text'), ('correlation_id', 'uuid'))
         AS old (name, type)
    JOIN pg_attribute AS a ON a.attname = old.name AND a.atttypid = old.type::regtype
    WHERE a.attrelid = to_regclass('public.events') AND NOT a.attisdropped";

const APPEND: &str = include_str!("../store/append.sql");
const APPEND_FIRST: &str = include_str!("../store/append_first.sql");

/// What V0.2 would have written: it kept the entity's id in `data`.
static APPEND_TO_BOTH: LazyLock<String> = LazyLock::new(|| {
    before_the_events(
        APPEND,
        "\nstored AS (",
        "
legacy AS (
    INSERT INTO public.events (id, user_id, timestamp, type, data, source, correlation_id)
    SELECT event_id, user_id, occurred_at, event_type,
           data::jsonb || jsonb_build_object('entityId', aggregate_id), source, correlation_id
    FROM placed
    ORDER BY event_id
    ON CONFLICT DO NOTHING
),",
    )
});
static APPEND_FIRST_TO_BOTH: LazyLock<String> = LazyLock::new(|| {
    before_the_events(
        APPEND_FIRST,
        "\nledger AS (",
        "
legacy AS (
    INSERT INTO public.events (id, user_id, timestamp, type, data, source, correlation_id)
    SELECT $5, $3, $8, $7, $9::jsonb || jsonb_build_object('entityId', $2), $13, $12
    FROM moved
    ON CONFLICT DO NOTHING
),",
    )
});

fn before_the_events(sql: &str, place: &str, more: &str) -> String {
    sql.replacen(place, &format!("{more}{place}"), 1)
}

/// `append.sql`, with or without the old table.
pub(crate) fn append(both: bool) -> &'static str {
    if both { &APPEND_TO_BOTH } else { APPEND }
}

/// `append_first.sql`, with or without the old table.
pub(crate) fn append_first(both: bool) -> &'static str {
    if both { &APPEND_FIRST_TO_BOTH } else { APPEND_FIRST }
}

/// Whether appends write to the old table, too: looked up, and remembered for a minute.
#[derive(Debug, Clone, Default)]
pub(crate) struct DualWrite(Arc<Mutex<Option<(Instant, bool)>>>);

impl DualWrite {
    /// Whether the next append should.
    pub(crate) async fn wanted(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let seen = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Some((at, wanted)) if at.elapsed() < LOOK_AGAIN => Ok(wanted),
            _ => {
                let wanted = sqlx::query_scalar(PROBE).fetch_one(connection).await?;
                self.remember(Some((Instant::now(), wanted)));
                Ok(wanted)
            }
        }
    }

    /// Looks again with the next append.
    pub(crate) fn forget(&self) {
        self.remember(None);
    }

    /// The old table has refused what the event store took: for a minute it gets nothing.
    pub(crate) fn suspend(&self, why: &DatabaseError) {
        tracing::warn!(reason = %why, "the table of V0.2 is not written to for a minute");
        self.remember(Some((Instant::now(), false)));
    }

    fn remember(&self, seen: Option<(Instant, bool)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_statements_have_a_place_for_the_old_table() {
        for (both, alone) in [(append(true), APPEND), (append_first(true), APPEND_FIRST)] {
            assert_eq!(both.matches("INSERT INTO public.events").count(), 1, "{both}");
            assert!(!alone.contains("public.events"));
        }
    }
}
