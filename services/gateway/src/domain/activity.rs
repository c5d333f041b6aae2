//! Lists of events.

use chrono::{DateTime, Utc};
use synap_proto::{
    field::{self, Checked},
    gateway::{GetDailyActivityRequest, ListUserEventsRequest},
};
use synap_types::Checksum;

use super::Fingerprint;

/// What the pages of one list have in common; how large they are is not part of it.
pub(crate) fn events_question(request: &ListUserEventsRequest) -> Checked<Checksum> {
    let mut print = Fingerprint::default();
    print.part(b"activity.list");
    print.tags(&request.types);
    for (name, bound) in [("from_time", request.from_time), ("until_time", request.until_time)] {
        let time = bound.map(|time| field::time(name, Some(time))).transpose()?;
        print.part(time.map(|time| time.to_rfc3339()).unwrap_or_default().as_bytes());
    }
    Ok(print.0.finish())
}

/// What the pages of one table of days have in common.
pub(crate) fn days_question(request: &GetDailyActivityRequest) -> Checksum {
    let mut print = Fingerprint::default();
    print.part(b"activity.days");
    print.part(request.start_date.as_bytes());
    print.part(request.end_date.as_bytes());
    print.0.finish()
}

/// Where a page of events in the order of time ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageEnd {
    pub(crate) occurred_at: DateTime<Utc>,
    /// Tells events of one moment apart.
    pub(crate) pos: i64,
}

impl PageEnd {
    /// For a page token. The database keeps microseconds.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.occurred_at.timestamp_micros().to_be_bytes());
        bytes[8..].copy_from_slice(&self.pos.to_be_bytes());
        bytes
    }

    /// From a page token that has been verified.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        let (micros, pos) = bytes.split_at(8);
        let micros = i64::from_be_bytes(micros.try_into().ok()?);
        let pos = i64::from_be_bytes(pos.try_into().ok()?);
        Some(Self { occurred_at: DateTime::from_timestamp_micros(micros)?, pos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_end_survives_its_token() {
        let occurred_at = DateTime::from_timestamp_micros(-1_234_567).unwrap();
        let end = PageEnd { occurred_at, pos: 7 };
        assert_eq!(PageEnd::from_bytes(end.to_bytes()), Some(end));
    }
}
