//! Streams and events, checked: whatever has one of these types can be stored.

mod event;
mod feed;
mod json;
mod read;
mod week;

use synap_types::{EntityType, UserId};
use uuid::Uuid;

pub(crate) use event::{EventType, NewEvent, Source, StoredEvent};
pub(crate) use feed::{ConsumerName, Filter, Place, Start, Subscribing};
pub(crate) use json::JsonObject;
pub(crate) use read::{Counting, PageEnd, Read, Times, Which};
pub(crate) use week::Week;

/// Events of one append at most.
pub(crate) const MAX_EVENTS: usize = 1_000;
/// Streams of one request at most.
pub(crate) const MAX_STREAMS: usize = 100;
/// Events that one read answers at most.
pub(crate) const MAX_READ: u32 = 10_000;
/// Types that a filter names at most.
pub(crate) const MAX_TYPES: usize = 100;
/// Bytes of an event's data at most: events hold references and deltas, not whole objects.
pub(crate) const MAX_DATA_BYTES: usize = 64 * 1024;
/// Bytes of an event's metadata at most.
pub(crate) const MAX_METADATA_BYTES: usize = 8 * 1024;

/// A small append has no more events, and no more bytes of data and metadata: what others may have to
/// wait for, and a group of which fits into memory.
pub(crate) const SMALL_EVENTS: usize = 16;
pub(crate) const SMALL_BYTES: usize = 64 * 1024;

/// The aggregate whose events form one stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct StreamId {
    pub(crate) aggregate_type: EntityType,
    pub(crate) aggregate_id: Uuid,
}

/// What a stream's version must be before an append. A stream without events has version 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Any,
    /// At least 1.
    Exists,
    Exact(i64),
    /// This version, or a stream without events, which then begins after it. At least 1.
    Adopt(i64),
}

impl Expected {
    pub(crate) fn allows(self, version: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Exists => version > 0,
            Self::Exact(expected) => version == expected,
            Self::Adopt(expected) => version == expected || version == 0,
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Exists => f.write_str("exists"),
            Self::Exact(version) | Self::Adopt(version) => version.fmt(f),
        }
    }
}

/// Events for one stream: all of them are appended or none.
#[derive(Debug, Clone)]
pub(crate) struct StreamAppend {
    pub(crate) stream: StreamId,
    pub(crate) user: UserId,
    pub(crate) expected: Expected,
    /// 1 to [`MAX_EVENTS`].
    pub(crate) events: Vec<NewEvent>,
}

impl StreamAppend {
    /// How many events.
    pub(crate) fn size(&self) -> i64 {
        // At most MAX_EVENTS.
        i64::try_from(self.events.len()).unwrap_or(i64::MAX)
    }

    /// Whether it is within [`SMALL_EVENTS`] and [`SMALL_BYTES`].
    pub(crate) fn is_small(&self) -> bool {
        let bytes = |event: &NewEvent| event.data.as_str().len() + event.metadata.as_str().len();
        self.events.len() <= SMALL_EVENTS
            && self.events.iter().map(bytes).sum::<usize>() <= SMALL_BYTES
    }
}

/// Where the events of one append are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) first_version: i64,
    pub(crate) last_version: i64,
    /// They had been stored before.
    pub(crate) duplicate: bool,
}
