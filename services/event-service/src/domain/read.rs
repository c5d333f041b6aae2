//! What can be read.

use chrono::{DateTime, Utc};
use synap_types::UserId;
use uuid::Uuid;

use super::{EventType, StreamId};

/// A read of a part of the events of one user.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    /// What is another user's is not there.
    pub(crate) user: UserId,
    pub(crate) which: Which,
    pub(crate) backwards: bool,
    /// Events at most.
    pub(crate) limit: u32,
}

/// Which of a user's events, and where in their order to begin.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    /// One stream in the order of versions, with this one first.
    Stream { stream: StreamId, from: i64 },
    /// All, in the order in which they happened.
    Timeline { types: Vec<EventType>, times: Times, after: Option<PageEnd> },
    /// One interaction's, in the order in which they happened.
    Correlated { correlation_id: Uuid, after: Option<PageEnd> },
}

/// From a time, until before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) from: Option<DateTime<Utc>>,
    pub(crate) until: Option<DateTime<Utc>>,
}

/// Where a page in the order of time ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageEnd {
    pub(crate) occurred_at: DateTime<Utc>,
    /// Tells events of one moment apart.
    pub(crate) pos: i64,
}

/// What to count.
#[derive(Debug, Clone)]
pub(crate) struct Counting {
    /// `None` is everybody.
    pub(crate) user: Option<UserId>,
    pub(crate) types: Vec<EventType>,
    pub(crate) times: Times,
}

impl From<PageEnd> for (i64, i64) {
    fn from(end: PageEnd) -> Self {
        (end.occurred_at.timestamp_micros(), end.pos)
    }
}
