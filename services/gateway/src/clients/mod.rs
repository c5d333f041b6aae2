//! The three services, in the gateway's own words: a client takes and gives domain types, and
//! repeats what is safe to repeat.

mod activity;
mod content;
mod entity;
mod event;

use prost_types::Timestamp;
use synap_proto::field;

pub(crate) use activity::{DayCount, EventPage, Happened, Watched};
pub(crate) use content::{BodyAhead, BodyStream, ContentClient, SignedUrl};
pub(crate) use entity::{
    Attempt, Begun, Change, Committed, Creation, EntityClient, Found, Intent, Kind, NewBody,
    OperationId, Purgeable, Update, What, Words,
};
pub(crate) use event::{EntityEvent, EventAhead, EventClient};

use crate::error::Error;

/// A field that a service's contract promises.
fn promised<T>(service: &str, what: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::contract(service, what))
}

fn promised_time(
    service: &str,
    what: &str,
    value: Option<Timestamp>,
) -> Result<chrono::DateTime<chrono::Utc>, Error> {
    field::time(what, value).map_err(|_| Error::contract(service, what))
}

fn promised_uuid(service: &str, what: &str, value: &str) -> Result<uuid::Uuid, Error> {
    field::uuid(what, value).map_err(|_| Error::contract(service, what))
}
