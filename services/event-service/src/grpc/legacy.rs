//! Messages of the migration of old events to its types, and back.

use synap_proto::{
    event::{
        CompareLegacyEventsResponse, LegacyDifference, LegacyEntity, LegacyMigration, LegacyStep,
        ListQuarantinedEventsResponse, MigrateLegacyEventsRequest, MigrateLegacyEventsResponse,
        RetireLegacyEventsRequest,
    },
    field::{self, Checked, Violation},
};
use uuid::Uuid;

use crate::legacy::{
    BatchAnswer, BatchRequest, Day, Head, Migration, Pass, Position, Quarantined, Step,
};

/// Rows of one batch at most, and so entities that it can name. A batch holds a lock for each stream,
/// and PostgreSQL's table of locks has room for some thousands.
const MAX_BATCH: usize = 2_000;

pub(super) fn batch(request: MigrateLegacyEventsRequest) -> Checked<BatchRequest> {
    let most = i32::try_from(MAX_BATCH).unwrap_or(i32::MAX);
    field::length("entities", &request.entities, 0, MAX_BATCH)?;
    let entities = request.entities.into_iter().enumerate();
    let position = Position::from_cursor(&request.cursor)
        .ok_or_else(|| Violation::new("cursor", "must be from an answer of a dry run"))?;
    Ok(BatchRequest {
        size: field::within("batch_size", request.batch_size, 1, most)?.into(),
        heads: entities
            .map(|(i, one)| head(one).map_err(|why| why.within(format!("entities[{i}]"))))
            .collect::<Checked<_>>()?,
        dry_run: request.dry_run.then_some(position),
        again: request.again,
    })
}

fn head(entity: LegacyEntity) -> Checked<(Uuid, Option<Head>)> {
    let id = field::uuid("id", &entity.id)?;
    if entity.user_id.is_empty() {
        return Ok((id, None));
    }
    let version = field::within("version", entity.version, 0, i64::MAX / 2)?;
    Ok((id, Some(Head { user: entity.user_id, entity_type: entity.r#type, version })))
}

pub(super) fn answer(answer: BatchAnswer, migration: Migration) -> MigrateLegacyEventsResponse {
    MigrateLegacyEventsResponse {
        unknown_entities: answer.unknown.iter().map(Uuid::to_string).collect(),
        outcomes: answer.outcomes.into_iter().collect(),
        migration: Some(migration.into()),
        next_cursor: answer.next.map_or_else(String::new, |next| next.to_cursor()),
        done: answer.done,
    }
}

pub(super) fn step(request: &RetireLegacyEventsRequest) -> Checked<Step> {
    field::within("min_days", request.min_days, 0, 36_500)?;
    match request.step() {
        LegacyStep::Unspecified => Err(Violation::new("step", "is required")),
        LegacyStep::Rename => Ok(Step::Rename),
        LegacyStep::Restore => Ok(Step::Restore),
        LegacyStep::Drop => Ok(Step::Drop),
    }
}

impl From<Migration> for LegacyMigration {
    fn from(migration: Migration) -> Self {
        Self {
            present: migration.present,
            dual_write: migration.dual_write,
            pass: migration.pass.map_or("", Pass::name).to_owned(),
            round: migration.round,
            seen_rows: migration.seen,
            total_rows: migration.total,
            outcomes: migration.outcomes.into_iter().collect(),
            verify_time: migration.verified_at.map(field::timestamp),
            rename_time: migration.renamed_at.map(field::timestamp),
        }
    }
}

impl From<Day> for CompareLegacyEventsResponse {
    fn from(day: Day) -> Self {
        let different = day.different.iter().zip(day.kinds);
        Self {
            date: day.date.to_string(),
            legacy_rows: day.legacy_rows,
            quarantined: day.quarantined,
            events: day.events,
            legacy_hash: day.legacy_hash.cast_unsigned(),
            hash: day.hash.cast_unsigned(),
            differences: different
                .map(|(id, kind)| LegacyDifference { event_id: id.to_string(), kind })
                .collect(),
        }
    }
}

impl From<Quarantined> for ListQuarantinedEventsResponse {
    fn from(row: Quarantined) -> Self {
        Self {
            origin: row.origin,
            event_id: row.event_id.map_or_else(String::new, |id| id.to_string()),
            reason: row.reason,
            row: row.data,
        }
    }
}
