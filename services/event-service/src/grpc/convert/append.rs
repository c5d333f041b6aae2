//! Appends.

use std::collections::HashSet;

use chrono::{DateTime, Datelike as _, SubsecRound as _, Utc};
use synap_proto::{
    event::{
        AppendEventsRequest, ExpectedVersion, NewEvent as NewEventMessage, PrepareAppendRequest,
        StreamAppend as StreamAppendMessage, StreamAppendResult, expected_version::Expectation,
        prepare_append_request::Step,
    },
    field::{self, Checked, Violation},
};

use super::stream_id;
use crate::domain::{
    Appended, EventType, Expected, JsonObject, MAX_DATA_BYTES, MAX_EVENTS, MAX_METADATA_BYTES,
    MAX_STREAMS, NewEvent, SMALL_BYTES, SMALL_EVENTS, Source, StreamAppend,
};

pub(in crate::grpc) fn appends(request: AppendEventsRequest) -> Checked<Vec<StreamAppend>> {
    field::length("appends", &request.appends, 1, MAX_STREAMS)?;
    let appends: Vec<_> = request
        .appends
        .into_iter()
        .enumerate()
        .map(|(i, append)| stream_append(append).map_err(|why| why.within(format!("appends[{i}]"))))
        .collect::<Checked<_>>()?;
    each_once(&appends)?;
    Ok(appends)
}

/// The append that is to be prepared.
pub(in crate::grpc) fn to_prepare(first: Option<PrepareAppendRequest>) -> Checked<StreamAppend> {
    let step = first.and_then(|message| message.step);
    let Some(Step::Append(request)) = step else {
        return Err(Violation::new("append", "is required, in the first message and soon"));
    };
    let mut appends = appends(request).map_err(|why| why.within("append"))?;
    appends.pop().filter(|only| appends.is_empty() && only.is_small()).ok_or_else(|| {
        let limits = format!("{SMALL_EVENTS} events and {SMALL_BYTES} bytes of JSON");
        Violation::new("append.appends", format!("must be one stream's, {limits} at most"))
    })
}

/// A stream twice would have two answers to what its version was; an event twice, two places.
fn each_once(appends: &[StreamAppend]) -> Checked<()> {
    let mut streams = HashSet::new();
    let mut events = HashSet::new();
    for (i, append) in appends.iter().enumerate() {
        if !streams.insert(&append.stream) {
            let path = format!("appends[{i}].aggregate_id");
            return Err(Violation::new(
                path,
                "must not name a stream that is in the request twice",
            ));
        }
        for (j, event) in append.events.iter().enumerate() {
            if !events.insert(event.id) {
                let path = format!("appends[{i}].events[{j}].event_id");
                return Err(Violation::new(path, "must not be in the request twice"));
            }
        }
    }
    Ok(())
}

fn stream_append(message: StreamAppendMessage) -> Checked<StreamAppend> {
    field::length("events", &message.events, 1, MAX_EVENTS)?;
    Ok(StreamAppend {
        stream: stream_id(message.aggregate_type, &message.aggregate_id)?,
        user: field::user_id("user_id", message.user_id)?,
        expected: expected(message.expected_version)?,
        events: message
            .events
            .into_iter()
            .enumerate()
            .map(|(i, event)| new_event(event).map_err(|why| why.within(format!("events[{i}]"))))
            .collect::<Checked<_>>()?,
    })
}

fn expected(message: Option<ExpectedVersion>) -> Checked<Expected> {
    let Some(message) = message else {
        return Ok(Expected::Any);
    };
    Ok(match field::required("expected_version.expectation", message.expectation)? {
        Expectation::Exact(version) => {
            Expected::Exact(field::within("expected_version.exact", version, 0, i64::MAX)?)
        }
        Expectation::NoStream(()) => Expected::Exact(0),
        Expectation::Any(()) => Expected::Any,
        Expectation::Exists(()) => Expected::Exists,
        Expectation::Adopt(version) => {
            Expected::Adopt(field::within("expected_version.adopt", version, 1, i64::MAX / 2)?)
        }
    })
}

fn new_event(message: NewEventMessage) -> Checked<NewEvent> {
    let json = |field, text, limit| {
        JsonObject::parse(text, limit).map_err(|why| Violation::new(field, why))
    };
    if message.data.is_empty() {
        return Err(Violation::new("data", "is required: a JSON object, {} if there is nothing"));
    }
    Ok(NewEvent {
        id: field::uuid("event_id", &message.event_id)?,
        event_type: EventType::parse(message.r#type).map_err(|why| Violation::new("type", why))?,
        occurred_at: occur_time(message.occur_time)?,
        data: json("data", message.data, MAX_DATA_BYTES)?,
        metadata: json("metadata", message.metadata, MAX_METADATA_BYTES)?,
        causation_id: field::optional_uuid("causation_id", &message.causation_id)?,
        correlation_id: field::optional_uuid("correlation_id", &message.correlation_id)?,
        source: Source::parse(&message.source).map_err(|why| Violation::new("source", why))?,
    })
}

/// Cut to whole microseconds: what PostgreSQL stores, and so what a repeat is compared with.
fn occur_time(value: Option<prost_types::Timestamp>) -> Checked<DateTime<Utc>> {
    let time = field::time("occur_time", value)?;
    // The range of google.protobuf.Timestamp.
    if !(1..=9999).contains(&time.year()) {
        return Err(Violation::new("occur_time", "must be in the years 1 to 9999"));
    }
    Ok(time.trunc_subsecs(6))
}

impl From<Appended> for StreamAppendResult {
    fn from(appended: Appended) -> Self {
        Self {
            first_version: appended.first_version,
            last_version: appended.last_version,
            duplicate: appended.duplicate,
        }
    }
}
