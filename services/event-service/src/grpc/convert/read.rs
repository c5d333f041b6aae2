//! Reads.

use chrono::{DateTime, SubsecRound as _, Utc};
use prost_types::Timestamp;
use synap_proto::{
    event::{
        CountEventsRequest, PageEnd as PageEndMessage, ReadCorrelatedRequest, ReadStreamRequest,
        ReadUserEventsRequest,
    },
    field::{self, Checked, Violation},
};
use synap_types::UserId;

use super::{stream_id, types};
use crate::domain::{Counting, MAX_READ, PageEnd, Read, Times, Which};

pub(in crate::grpc) fn stream(request: ReadStreamRequest) -> Checked<Read> {
    // Versions of old events may be below 1.
    let from = match request.from_version {
        0 if request.backwards => i64::MAX,
        0 => i64::MIN,
        version => version,
    };
    Ok(Read {
        user: field::user_id("user_id", request.user_id)?,
        which: Which::Stream {
            stream: stream_id(request.aggregate_type, &request.aggregate_id)?,
            from,
        },
        backwards: request.backwards,
        limit: limit(request.limit)?,
    })
}

pub(in crate::grpc) fn timeline(request: ReadUserEventsRequest) -> Checked<Read> {
    Ok(Read {
        user: field::user_id("user_id", request.user_id)?,
        which: Which::Timeline {
            types: types("types", request.types, 0)?,
            times: times(request.from_time, request.until_time)?,
            after: after(request.after)?,
        },
        backwards: request.backwards,
        limit: limit(request.limit)?,
    })
}

pub(in crate::grpc) fn correlated(request: ReadCorrelatedRequest) -> Checked<Read> {
    Ok(Read {
        user: field::user_id("user_id", request.user_id)?,
        which: Which::Correlated {
            correlation_id: field::uuid("correlation_id", &request.correlation_id)?,
            after: after(request.after)?,
        },
        backwards: false,
        limit: limit(request.limit)?,
    })
}

pub(in crate::grpc) fn counting(request: CountEventsRequest) -> Checked<Counting> {
    Ok(Counting {
        user: optional_user("user_id", request.user_id)?,
        types: types("types", request.types, 0)?,
        times: times(request.from_time, request.until_time)?,
    })
}

pub(super) fn optional_user(name: &str, text: String) -> Checked<Option<UserId>> {
    if text.is_empty() { Ok(None) } else { field::user_id(name, text).map(Some) }
}

fn limit(limit: i32) -> Checked<u32> {
    match u32::try_from(limit) {
        Ok(0) => Ok(MAX_READ),
        Ok(limit) if limit <= MAX_READ => Ok(limit),
        _ => Err(Violation::new("limit", format!("must be between 0 and {MAX_READ}"))),
    }
}

/// Cut to whole microseconds as the times of events are, so that the archive takes a bound as the
/// database does.
fn bound(name: &str, time: Option<Timestamp>) -> Checked<DateTime<Utc>> {
    Ok(field::time(name, time)?.trunc_subsecs(6))
}

fn times(from: Option<Timestamp>, until: Option<Timestamp>) -> Checked<Times> {
    Ok(Times {
        from: from.map(|time| bound("from_time", Some(time))).transpose()?,
        until: until.map(|time| bound("until_time", Some(time))).transpose()?,
    })
}

fn after(end: Option<PageEndMessage>) -> Checked<Option<PageEnd>> {
    let check = |end: PageEndMessage| {
        let occurred_at = bound("after.occur_time", end.occur_time)?;
        Ok(PageEnd { occurred_at, pos: field::within("after.pos", end.pos, 0, i64::MAX)? })
    };
    end.map(check).transpose()
}
