//! Events, before and after they are stored.

use chrono::{DateTime, Utc};
use synap_types::{Checksum, Hasher, UserId};
use uuid::Uuid;

use super::{JsonObject, StreamId};

/// Bytes of an event type at most.
const MAX_TYPE_BYTES: usize = 100;

/// What happened, in the form `thing.happened`: `entity.created`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventType(String);

/// The text is not an event type.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be two or more words with dots between them, like entity.created: a word is a lower-case \
     ASCII letter followed by such letters, digits or underscores; {MAX_TYPE_BYTES} bytes in all"
)]
pub(crate) struct InvalidEventType;

impl EventType {
    pub(crate) fn parse(text: String) -> Result<Self, InvalidEventType> {
        let is_word = |word: &str| {
            word.starts_with(|first: char| first.is_ascii_lowercase())
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if text.len() <= MAX_TYPE_BYTES && text.contains('.') && text.split('.').all(is_word) {
            Ok(Self(text))
        } else {
            Err(InvalidEventType)
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who caused an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Api,
    Automation,
    Sync,
    Migration,
    System,
}

/// The text is not a source.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be api, automation, sync, migration or system")]
pub(crate) struct InvalidSource;

impl Source {
    /// An empty text is `api`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidSource> {
        Ok(match text {
            "" | "api" => Self::Api,
            "automation" => Self::Automation,
            "sync" => Self::Sync,
            "migration" => Self::Migration,
            "system" => Self::System,
            _ => return Err(InvalidSource),
        })
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Automation => "automation",
            Self::Sync => "sync",
            Self::Migration => "migration",
            Self::System => "system",
        }
    }
}

/// An event to append.
#[derive(Debug, Clone)]
pub(crate) struct NewEvent {
    pub(crate) id: Uuid,
    pub(crate) event_type: EventType,
    /// Whole microseconds, which is what PostgreSQL stores.
    pub(crate) occurred_at: DateTime<Utc>,
    pub(crate) data: JsonObject,
    pub(crate) metadata: JsonObject,
    pub(crate) causation_id: Option<Uuid>,
    pub(crate) correlation_id: Option<Uuid>,
    pub(crate) source: Source,
}

impl NewEvent {
    /// SHA-256 of everything that makes two events with one id the same event: the stream, its
    /// user and every field. Stored in the ledger: it must stay what it is for all releases.
    pub(crate) fn body_hash(&self, stream: &StreamId, user: &UserId) -> Checksum {
        let mut hasher = Hasher::default();
        let optional = |id: Option<Uuid>| id.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        for field in [
            stream.aggregate_type.as_str().as_bytes(),
            stream.aggregate_id.as_bytes(),
            user.as_str().as_bytes(),
            self.event_type.as_str().as_bytes(),
            &self.occurred_at.timestamp_micros().to_be_bytes(),
            self.data.digest().as_bytes(),
            self.metadata.digest().as_bytes(),
            &optional(self.causation_id),
            &optional(self.correlation_id),
            self.source.as_str().as_bytes(),
        ] {
            hasher.update(&(field.len() as u64).to_be_bytes());
            hasher.update(field);
        }
        hasher.finish()
    }
}

/// An event as stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredEvent {
    pub(crate) event_id: Uuid,
    pub(crate) aggregate_type: String,
    pub(crate) aggregate_id: Uuid,
    pub(crate) version: i64,
    pub(crate) event_type: String,
    pub(crate) user_id: String,
    pub(crate) occurred_at: DateTime<Utc>,
    pub(crate) data: String,
    pub(crate) metadata: String,
    pub(crate) causation_id: Option<Uuid>,
    pub(crate) correlation_id: Option<Uuid>,
    pub(crate) source: String,
    pub(crate) epoch: i64,
    pub(crate) xid: i64,
    pub(crate) pos: i64,
}

impl StoredEvent {
    /// Bytes of what a caller has written in it: what a page, or a group of a file, is measured by.
    pub(crate) fn body_bytes(&self) -> usize {
        self.data.len() + self.metadata.len()
    }

    /// One of `ada`'s, so many microseconds after 1970, with so many bytes of data.
    #[cfg(test)]
    pub(crate) fn example(number: u32, bytes: usize) -> Self {
        Self {
            event_id: Uuid::from_u128(number.into()),
            aggregate_type: "note".to_owned(),
            aggregate_id: Uuid::nil(),
            version: number.into(),
            event_type: "entity.updated".to_owned(),
            user_id: "ada".to_owned(),
            occurred_at: DateTime::UNIX_EPOCH + chrono::TimeDelta::microseconds(number.into()),
            data: "x".repeat(bytes),
            metadata: String::new(),
            causation_id: None,
            correlation_id: None,
            source: "api".to_owned(),
            epoch: 1,
            xid: 1,
            pos: number.into(),
        }
    }
}

synap_postgres::from_row!(StoredEvent {
    event_id,
    aggregate_type,
    aggregate_id,
    version,
    event_type,
    user_id,
    occurred_at,
    data,
    metadata,
    causation_id,
    correlation_id,
    source,
    epoch,
    xid,
    pos,
});

#[cfg(test)]
mod tests {
    use synap_types::EntityType;

    use super::*;

    #[test]
    fn event_types_are_words_with_dots() {
        for good in ["entity.created", "a.b", "note.body_2.replaced"] {
            assert!(EventType::parse(good.to_owned()).is_ok(), "{good}");
        }
        let long = format!("a.{}", "b".repeat(99));
        for bad in
            ["", "entity", ".created", "entity.", "a..b", "Entity.created", "a.1b", "a.b c", &long]
        {
            assert!(EventType::parse(bad.to_owned()).is_err(), "{bad}");
        }
    }

    fn event() -> NewEvent {
        NewEvent {
            id: Uuid::from_u128(1),
            event_type: EventType::parse("entity.created".to_owned()).unwrap(),
            occurred_at: DateTime::from_timestamp_micros(1).unwrap(),
            data: JsonObject::parse("{}".to_owned(), 9).unwrap(),
            metadata: JsonObject::parse("{}".to_owned(), 9).unwrap(),
            causation_id: None,
            correlation_id: None,
            source: Source::Api,
        }
    }

    #[test]
    fn every_field_is_part_of_the_body() {
        let stream =
            StreamId { aggregate_type: EntityType::note(), aggregate_id: Uuid::from_u128(2) };
        let user = UserId::parse("u").unwrap();
        let plain = event().body_hash(&stream, &user);
        assert_eq!(event().body_hash(&stream, &user), plain);
        // A release that hashed differently would take every repeat for a reuse.
        assert_eq!(plain.to_string(), "sha256:xjOYqUw+CmNpPso1FnnWuNwtCuO0Q+0G1ppD10KabUM=");

        let json = JsonObject::parse("{\"a\":1}".to_owned(), 9).unwrap();
        let id = Some(Uuid::from_u128(3));
        let others = [
            NewEvent { event_type: EventType("entity.deleted".to_owned()), ..event() },
            NewEvent { occurred_at: DateTime::UNIX_EPOCH, ..event() },
            NewEvent { data: json.clone(), ..event() },
            NewEvent { metadata: json, ..event() },
            NewEvent { causation_id: id, ..event() },
            NewEvent { correlation_id: id, ..event() },
            NewEvent { source: Source::Sync, ..event() },
        ];
        let mut hashes: Vec<_> =
            others.iter().map(|event| event.body_hash(&stream, &user).to_string()).collect();
        let elsewhere = StreamId { aggregate_id: Uuid::from_u128(9), ..stream.clone() };
        hashes.push(event().body_hash(&elsewhere, &user).to_string());
        hashes.push(event().body_hash(&stream, &UserId::parse("v").unwrap()).to_string());
        hashes.push(plain.to_string());
        let count = hashes.len();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }
}
