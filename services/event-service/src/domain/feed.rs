//! Places in the feed of all events, and what of it somebody wants.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use synap_types::{EntityType, UserId};

use super::{EventType, StoredEvent};

/// Changes when the meaning of what follows does: cursors of an older release are then refused,
/// instead of misread.
const CURSOR_VERSION: u8 = 1;

/// A place in the order of all events, which is that of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Which cluster's transactions: those of two cannot be compared.
    pub(crate) epoch: i64,
    pub(crate) xid: i64,
    /// 0 is before all events of the transaction.
    pub(crate) pos: i64,
}

/// The text is no cursor.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the cursor of an event or a heartbeat")]
pub(crate) struct InvalidCursor;

impl Place {
    pub(crate) const BEGINNING: Self = Self { epoch: 0, xid: 0, pos: 0 };

    /// The place as its readers see it: opaque, and the same in every release.
    pub(crate) fn cursor(self) -> String {
        let mut bytes = vec![CURSOR_VERSION];
        for part in [self.epoch, self.xid, self.pos] {
            bytes.extend(part.to_be_bytes());
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor.
    pub(crate) fn parse(cursor: &str) -> Result<Self, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| InvalidCursor)?;
        let Some((&CURSOR_VERSION, parts)) = bytes.split_first() else { return Err(InvalidCursor) };
        let parts: &[u8; 24] = parts.try_into().map_err(|_| InvalidCursor)?;
        let (parts, _) = parts.as_chunks::<8>();
        let [epoch, xid, pos] = [0, 1, 2].map(|n| i64::from_be_bytes(parts[n]));
        if epoch < 0 || xid < 0 || pos < 0 {
            return Err(InvalidCursor);
        }
        Ok(Self { epoch, xid, pos })
    }
}

impl StoredEvent {
    pub(crate) fn place(&self) -> Place {
        Place { epoch: self.epoch, xid: self.xid, pos: self.pos }
    }
}

/// Which events; what is empty bounds nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) types: Vec<EventType>,
    pub(crate) aggregate_types: Vec<EntityType>,
    pub(crate) user: Option<UserId>,
}

impl Filter {
    /// Whether an event is wanted. `feed.sql` says the same.
    pub(crate) fn allows(&self, event: &StoredEvent) -> bool {
        let is_type = |wanted: &EventType| wanted.as_str() == event.event_type;
        let is_aggregate = |wanted: &EntityType| wanted.as_str() == event.aggregate_type;
        (self.types.is_empty() || self.types.iter().any(is_type))
            && (self.aggregate_types.is_empty() || self.aggregate_types.iter().any(is_aggregate))
            && self.user.as_ref().is_none_or(|user| user.as_str() == event.user_id)
    }
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    After(Place),
    /// Behind everything that is there.
    Now,
}

/// What is subscribed to.
#[derive(Debug, Clone)]
pub(crate) struct Subscribing {
    pub(crate) filter: Filter,
    pub(crate) start: Start,
    /// Begins after its checkpoint, if it has one.
    pub(crate) consumer: Option<ConsumerName>,
    /// A heartbeat comes at least so often.
    pub(crate) heartbeat: Duration,
}

/// The name of a durable consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsumerName(String);

/// The text is no name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 100 lower-case ASCII letters, digits, dots, dashes or underscores")]
pub(crate) struct InvalidConsumerName;

impl ConsumerName {
    pub(crate) fn parse(text: String) -> Result<Self, InvalidConsumerName> {
        let is_good =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if (1..=100).contains(&text.len()) && text.bytes().all(is_good) {
            Ok(Self(text))
        } else {
            Err(InvalidConsumerName)
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_the_place_that_it_was_made_of_and_nothing_else() {
        let place = Place { epoch: 1_700_000_000, xid: i64::MAX, pos: 7 };
        let cursor = place.cursor();
        // A release that read it otherwise would move every reader.
        assert_eq!(cursor, "AQAAAABlU_EAf_________8AAAAAAAAABw");
        assert_eq!(Place::parse(&cursor), Ok(place));
        for bad in ["", "x", "ü", &cursor[1..], &format!("{cursor}AA"), "AgAAAABlU_EA"] {
            assert_eq!(Place::parse(bad), Err(InvalidCursor), "{bad}");
        }
        let negative = Place { pos: -1, ..place }.cursor();
        assert_eq!(Place::parse(&negative), Err(InvalidCursor));
    }

    #[test]
    fn places_are_in_the_order_of_epoch_then_transaction() {
        let place = |epoch, xid, pos| Place { epoch, xid, pos };
        let ordered = [Place::BEGINNING, place(1, 9, 9), place(2, 1, 1), place(2, 1, 2)];
        assert!(ordered.is_sorted());
    }
}
