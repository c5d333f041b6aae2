//! How far the migration is, as the database keeps it.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::{
    Legacy, LegacyError, Outcomes, dual_write,
    rows::{Origin, Position},
};

/// What is being done with the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Counting what each stream will get.
    Survey,
    Copy,
    Done,
}

impl Pass {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Survey => "survey",
            Self::Copy => "copy",
            Self::Done => "done",
        }
    }

    fn by_name(name: &str) -> Self {
        [Self::Survey, Self::Copy]
            .into_iter()
            .find(|pass| pass.name() == name)
            .unwrap_or(Self::Done)
    }
}

/// How far it is.
#[derive(Debug)]
pub(super) struct State {
    pub(super) round: i32,
    pub(super) pass: Pass,
    pub(super) position: Position,
    pub(super) total: i64,
    pub(super) seen: i64,
    pub(super) outcomes: Outcomes,
    pub(super) verified_at: Option<DateTime<Utc>>,
    pub(super) renamed_at: Option<DateTime<Utc>>,
}

/// What an operator is told.
#[derive(Debug)]
pub(crate) struct Migration {
    pub(crate) present: bool,
    pub(crate) dual_write: bool,
    /// Of the round, if one was begun.
    pub(crate) round: i32,
    pub(crate) pass: Option<Pass>,
    pub(crate) seen: i64,
    pub(crate) total: i64,
    pub(crate) outcomes: Outcomes,
    pub(crate) verified_at: Option<DateTime<Utc>>,
    pub(crate) renamed_at: Option<DateTime<Utc>>,
}

struct StateRow {
    round: i32,
    pass: String,
    origin: String,
    position: Vec<String>,
    total: i64,
    seen: i64,
    outcomes: Value,
    verified_at: Option<DateTime<Utc>>,
    renamed_at: Option<DateTime<Utc>>,
}

synap_postgres::from_row!(StateRow {
    round,
    pass,
    origin,
    position,
    total,
    seen,
    outcomes,
    verified_at,
    renamed_at,
});

impl From<StateRow> for State {
    fn from(row: StateRow) -> Self {
        let origin = Origin::by_name(&row.origin).unwrap_or(Origin::Events);
        let key = <[String; 3]>::try_from(row.position);
        Self {
            round: row.round,
            pass: Pass::by_name(&row.pass),
            position: key.map_or_else(|_| Position::begin(origin), |key| Position { origin, key }),
            total: row.total,
            seen: row.seen,
            outcomes: serde_json::from_value(row.outcomes).unwrap_or_default(),
            verified_at: row.verified_at,
            renamed_at: row.renamed_at,
        }
    }
}

impl State {
    /// `None` if nobody has begun.
    pub(super) async fn load(connection: &mut PgConnection) -> Result<Option<Self>, sqlx::Error> {
        let row: Option<StateRow> = sqlx::query_as(
            "SELECT round, pass, origin, position, total, seen, outcomes, verified_at, renamed_at
             FROM event_store.legacy_migration",
        )
        .fetch_optional(connection)
        .await?;
        Ok(row.map(Into::into))
    }

    /// The beginning of a round.
    pub(super) async fn begin(
        connection: &mut PgConnection,
        round: i32,
        has_v2: bool,
    ) -> Result<Self, sqlx::Error> {
        let total: i64 = sqlx::query_scalar(if has_v2 {
            "SELECT (SELECT count(*) FROM public.events) + (SELECT count(*) FROM public.events_v2)"
        } else {
            "SELECT count(*) FROM public.events"
        })
        .fetch_one(connection)
        .await?;
        Ok(Self {
            round,
            pass: Pass::Survey,
            position: Position::begin(Origin::Events),
            total,
            seen: 0,
            outcomes: Outcomes::new(),
            verified_at: None,
            renamed_at: None,
        })
    }

    /// The rows of this table are all seen.
    pub(super) fn next_table(&mut self, has_v2: bool) {
        if self.position.origin == Origin::Events && has_v2 {
            self.position = Position::begin(Origin::EventsV2);
            return;
        }
        self.position = Position::begin(Origin::Events);
        match self.pass {
            Pass::Survey => (self.pass, self.seen) = (Pass::Copy, 0),
            Pass::Copy | Pass::Done => self.pass = Pass::Done,
        }
    }

    pub(super) async fn save(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO event_store.legacy_migration
                 (round, pass, origin, position, total, seen, outcomes)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (only_row) DO UPDATE
             SET (round, pass, origin, position, total, seen, outcomes, changed_at, verified_at)
               = ($1, $2, $3, $4, $5, $6, $7, now(), NULL)",
        )
        .bind(self.round)
        .bind(self.pass.name())
        .bind(self.position.origin.name())
        .bind(&self.position.key[..])
        .bind(self.total)
        .bind(self.seen)
        .bind(serde_json::json!(self.outcomes))
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Whether there is the table of early V0.3. One that shows this role only some of its rows would be
/// taken for one without the others.
pub(super) async fn has_v2(connection: &mut PgConnection) -> Result<bool, LegacyError> {
    if !is_there(connection, "public.events_v2").await? {
        return Ok(false);
    }
    let whole: bool = sqlx::query_scalar(
        "SELECT has_table_privilege('public.events_v2', 'SELECT')
             AND NOT row_security_active('public.events_v2')",
    )
    .fetch_one(connection)
    .await?;
    if !whole {
        let why = "this role may not read public.events_v2 past row-level security: the service must \
                   connect as its owner, and the table must not force it on its owner";
        return Err(LegacyError::NotReady(why.to_owned()));
    }
    Ok(true)
}

pub(super) async fn is_there(
    connection: &mut PgConnection,
    table: &str,
) -> Result<bool, sqlx::Error> {
    let query = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL");
    query.bind(table).fetch_one(connection).await
}

impl Legacy {
    /// How far the migration is.
    pub(crate) async fn migration(&self) -> Result<Migration, LegacyError> {
        let mut connection = self.admin.acquire().await?;
        let present = sqlx::query_scalar(dual_write::PROBE).fetch_one(&mut *connection).await?;
        let state = State::load(&mut connection).await?;
        let dual_write = self.dual_write.wanted(&mut connection).await?;
        Ok(match state {
            None => Migration {
                present,
                dual_write,
                round: 0,
                pass: None,
                seen: 0,
                total: 0,
                outcomes: Outcomes::new(),
                verified_at: None,
                renamed_at: None,
            },
            Some(state) => Migration {
                present,
                dual_write,
                round: state.round,
                pass: Some(state.pass),
                seen: state.seen,
                total: state.total,
                outcomes: state.outcomes,
                verified_at: state.verified_at,
                renamed_at: state.renamed_at,
            },
        })
    }
}
