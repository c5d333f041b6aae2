//! `synapctl migrate events --verify`: both stores, day by day.

use std::{fmt, time::Duration};

use serde::Serialize;
use synap_proto::event::{
    CompareLegacyEventsRequest, CompareLegacyEventsResponse,
    event_admin_service_client::EventAdminServiceClient,
};
use synap_rpc::{Channel, RpcError};

use crate::{cli::Exit, output::Lines};

/// All days together may take so long.
const LIMIT: Duration = Duration::from_hours(24);

pub(super) async fn compare(event: Channel, lines: &mut Lines) -> anyhow::Result<Exit> {
    let mut request = tonic::Request::new(CompareLegacyEventsRequest {});
    request.set_timeout(LIMIT);
    let days = EventAdminServiceClient::new(event).compare_legacy_events(request).await;
    let mut days = days.map_err(RpcError::from)?.into_inner();
    let mut total = Total::default();
    while let Some(day) = days.message().await.map_err(RpcError::from)? {
        let day = Day::from(day);
        total.add(&day);
        lines.print(&day)?;
    }
    lines.print(&total)?;
    Ok(if total.days_that_differ == 0 { Exit::Well } else { Exit::Findings })
}

#[derive(Debug, Serialize)]
struct Difference {
    event_id: String,
    kind: String,
}

#[derive(Debug, Serialize)]
struct Day {
    date: String,
    legacy_rows: i64,
    quarantined: i64,
    events: i64,
    /// Hexadecimal.
    legacy_hash: String,
    hash: String,
    differences: Vec<Difference>,
}

impl From<CompareLegacyEventsResponse> for Day {
    fn from(day: CompareLegacyEventsResponse) -> Self {
        Self {
            date: day.date,
            legacy_rows: day.legacy_rows,
            quarantined: day.quarantined,
            events: day.events,
            legacy_hash: format!("{:016x}", day.legacy_hash),
            hash: format!("{:016x}", day.hash),
            differences: day
                .differences
                .into_iter()
                .map(|one| Difference { event_id: one.event_id, kind: one.kind })
                .collect(),
        }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, legacy_rows, quarantined, events, hash, differences, .. } = self;
        write!(
            f,
            "{date}  {legacy_rows:>9} old  {quarantined:>7} quarantined  {events:>9} new  {hash}"
        )?;
        for Difference { event_id, kind } in differences {
            write!(f, "\n            {event_id}  {kind}")?;
        }
        Ok(())
    }
}

#[derive(Debug, Default, Serialize)]
struct Total {
    days: u64,
    days_that_differ: u64,
    legacy_rows: i64,
    quarantined: i64,
    events: i64,
}

impl Total {
    fn add(&mut self, day: &Day) {
        self.days += 1;
        self.days_that_differ += u64::from(!day.differences.is_empty());
        self.legacy_rows += day.legacy_rows;
        self.quarantined += day.quarantined;
        self.events += day.events;
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { days, days_that_differ, legacy_rows, quarantined, events } = self;
        writeln!(
            f,
            "{days} days: {legacy_rows} old events, {quarantined} of them quarantined, {events} new"
        )?;
        if *days_that_differ == 0 {
            f.write_str("every day is the same; next: synapctl events drop-legacy")
        } else {
            write!(f, "{days_that_differ} days differ")
        }
    }
}
