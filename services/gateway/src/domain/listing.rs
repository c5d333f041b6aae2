//! Lists of notes, and what one is asked for.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;
use synap_proto::{
    field::{self, Checked, Violation},
    gateway::ListNotesRequest,
};
use synap_types::Checksum;
use uuid::Uuid;

use super::{Entity, Fingerprint, check_tags};

/// Entities of a page, where nothing is said and at most (AIP-158).
const DEFAULT_PAGE: i32 = 50;
const MAX_PAGE: i32 = 200;

/// Which notes to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoteFilter {
    pub(crate) show_deleted: bool,
    /// All of them.
    pub(crate) tags: Vec<String>,
    pub(crate) created: Period,
    pub(crate) updated: Period,
}

/// From a time, until before another; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) from: Option<DateTime<Utc>>,
    pub(crate) until: Option<DateTime<Utc>>,
}

impl NoteFilter {
    /// Checks a request.
    pub(crate) fn check(request: ListNotesRequest) -> Checked<Self> {
        check_tags("tags", &request.tags)?;
        Ok(Self {
            show_deleted: request.show_deleted,
            tags: request.tags,
            created: Period {
                from: time("created_from", request.created_from)?,
                until: time("created_until", request.created_until)?,
            },
            updated: Period {
                from: time("updated_from", request.updated_from)?,
                until: time("updated_until", request.updated_until)?,
            },
        })
    }

    /// What the pages of one list have in common; how large they are is not part of it.
    pub(crate) fn fingerprint(&self) -> Checksum {
        let mut print = Fingerprint::default();
        print.part(b"notes.list");
        print.part(&[u8::from(self.show_deleted)]);
        print.tags(&self.tags);
        for bound in [self.created.from, self.created.until, self.updated.from, self.updated.until]
        {
            let text = bound.map(|time| time.to_rfc3339()).unwrap_or_default();
            print.part(text.as_bytes());
        }
        print.0.finish()
    }
}

/// How many to put on a page: less than what is asked for is allowed, and more never is.
pub(crate) fn page_size(asked: i32) -> Checked<usize> {
    let size = match asked {
        0 => DEFAULT_PAGE,
        asked => asked.min(MAX_PAGE),
    };
    usize::try_from(size).map_err(|_| Violation::new("page_size", "must not be negative"))
}

fn time(name: &str, value: Option<Timestamp>) -> Checked<Option<DateTime<Utc>>> {
    value.map(|time| field::time(name, Some(time))).transpose()
}

/// Where a note stands in a list. It never moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) id: Uuid,
}

impl Position {
    pub(crate) const BYTES: usize = 24;

    pub(crate) fn of(entity: &Entity) -> Self {
        Self { created_at: entity.created_at, id: entity.id }
    }

    /// For a page token. The database keeps microseconds.
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.created_at.timestamp_micros().to_be_bytes());
        bytes[8..].copy_from_slice(self.id.as_bytes());
        bytes
    }

    /// From a page token that has been verified.
    pub(crate) fn from_bytes(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let (micros, id) = bytes.split_at(8);
        let created_at =
            DateTime::from_timestamp_micros(i64::from_be_bytes(micros.try_into().ok()?))?;
        Some(Self { created_at, id: Uuid::from_slice(id).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_token() {
        let created_at = DateTime::from_timestamp_micros(-1_234_567).unwrap();
        let position = Position { created_at, id: Uuid::from_u128(7) };
        assert_eq!(Position::from_bytes(position.to_bytes()), Some(position));
    }

    #[test]
    fn a_page_has_a_size_that_can_be_served() {
        assert_eq!([0, 1, 200, 1000].map(|asked| page_size(asked).unwrap()), [50, 1, 200, 200]);
        assert_eq!(page_size(-1).unwrap_err().field, "page_size");
    }

    #[test]
    fn lists_that_differ_have_other_fingerprints() {
        let base = ListNotesRequest::default();
        let time = Some(Timestamp { seconds: 1, nanos: 0 });
        let tagged = |tags: &[&str]| ListNotesRequest {
            tags: tags.iter().map(ToString::to_string).collect(),
            ..base.clone()
        };
        let all = [
            base.clone(),
            ListNotesRequest { show_deleted: true, ..base.clone() },
            tagged(&["ab"]),
            tagged(&["a", "b"]),
            ListNotesRequest { created_from: time, ..base.clone() },
            ListNotesRequest { created_until: time, ..base.clone() },
            ListNotesRequest { updated_from: time, ..base.clone() },
            ListNotesRequest { updated_until: time, ..base.clone() },
        ];
        let prints: std::collections::HashSet<_> =
            all.iter().map(|r| NoteFilter::check(r.clone()).unwrap().fingerprint()).collect();
        assert_eq!(prints.len(), all.len());
        let larger = ListNotesRequest { page_size: 7, page_token: "x".into(), ..base.clone() };
        assert!(prints.contains(&NoteFilter::check(larger).unwrap().fingerprint()));
    }
}
