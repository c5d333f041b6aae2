//! What lists and searches are asked for, checked.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;
use synap_proto::{
    entity as pb,
    field::{self, Checked, Violation},
};

use super::convert::{check_tags, text};
use crate::domain::{Hit, Listing, Period, Position, Rank, Search};

/// Entities that one call returns at most.
const MAX_PAGE: i32 = 1000;
/// Below the longest word that a tsquery can hold.
const MAX_QUERY_BYTES: usize = 2000;
const MAX_TEXTS: usize = 100;
const MAX_TEXT_BYTES: usize = 16 * 1024;

impl TryFrom<pb::ListEntitiesRequest> for Listing {
    type Error = Violation;

    fn try_from(message: pb::ListEntitiesRequest) -> Checked<Self> {
        check_tags("tags", &message.tags)?;
        let after = message.after.map(Position::try_from).transpose();
        Ok(Self {
            user: field::user_id("user_id", message.user_id)?,
            entity_type: field::entity_type("entity_type", message.entity_type)?,
            limit: field::within("limit", message.limit, 1, MAX_PAGE)?.into(),
            after: after.map_err(|violation| violation.within("after"))?,
            include_deleted: message.include_deleted,
            tags: message.tags,
            created: Period {
                from: time("created_from", message.created_from)?,
                until: time("created_until", message.created_until)?,
            },
            updated: Period {
                from: time("updated_from", message.updated_from)?,
                until: time("updated_until", message.updated_until)?,
            },
        })
    }
}

impl TryFrom<pb::EntityPosition> for Position {
    type Error = Violation;

    fn try_from(message: pb::EntityPosition) -> Checked<Self> {
        Ok(Self {
            created_at: field::time("create_time", message.create_time)?,
            id: field::uuid("id", &message.id)?,
        })
    }
}

fn time(name: &str, value: Option<Timestamp>) -> Checked<Option<DateTime<Utc>>> {
    value.map(|time| field::time(name, Some(time))).transpose()
}

impl TryFrom<pb::SearchEntitiesRequest> for Search {
    type Error = Violation;

    fn try_from(message: pb::SearchEntitiesRequest) -> Checked<Self> {
        text("query", &message.query, MAX_QUERY_BYTES)?;
        let after = message.after.map(Rank::try_from).transpose();
        Ok(Self {
            user: field::user_id("user_id", message.user_id)?,
            entity_type: field::entity_type("entity_type", message.entity_type)?,
            typed: message.query,
            limit: field::within("limit", message.limit, 1, MAX_PAGE)?.into(),
            after: after.map_err(|violation| violation.within("after"))?,
        })
    }
}

impl TryFrom<pb::SearchPosition> for Rank {
    type Error = Violation;

    fn try_from(message: pb::SearchPosition) -> Checked<Self> {
        Ok(Self { score: message.score, id: field::uuid("id", &message.id)? })
    }
}

impl From<Hit> for pb::EntityHit {
    fn from(hit: Hit) -> Self {
        Self { entity: Some(hit.entity.into()), score: hit.score }
    }
}

pub(super) fn check_snippets(message: &pb::MakeSnippetsRequest) -> Checked<()> {
    text("query", &message.query, MAX_QUERY_BYTES)?;
    field::length("texts", &message.texts, 0, MAX_TEXTS)?;
    for (index, one) in message.texts.iter().enumerate() {
        text(&format!("texts[{index}]"), one, MAX_TEXT_BYTES)?;
    }
    Ok(())
}
