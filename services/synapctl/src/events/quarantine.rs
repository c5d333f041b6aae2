//! `synapctl events quarantine`.

use std::{fmt, time::Duration};

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use synap_proto::event::ListQuarantinedEventsRequest;
use synap_rpc::RpcError;

use super::Client;
use crate::{cli::Exit, output::ReportArgs};

/// The whole list may take so long.
const LIMIT: Duration = Duration::from_hours(1);

/// List the old events that this store cannot hold, whole, each with its reason. Exit code 1 if
/// there are any.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  synapctl events quarantine --reason source --output json")]
pub(super) struct QuarantineArgs {
    /// Only those of this reason.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Debug, Serialize)]
struct Kept {
    origin: String,
    event_id: String,
    reason: String,
    row: Value,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, event_id, reason, row } = self;
        write!(f, "{origin:<9}  {event_id:<36}  {reason:<14}  {row}")
    }
}

pub(super) async fn quarantine(mut client: Client, args: QuarantineArgs) -> anyhow::Result<Exit> {
    let mut lines = args.report.lines()?;
    let mut request = tonic::Request::new(ListQuarantinedEventsRequest { reason: args.reason });
    request.set_timeout(LIMIT);
    let rows = client.list_quarantined_events(request).await;
    let mut rows = rows.map_err(RpcError::from)?.into_inner();
    let mut exit = Exit::Well;
    while let Some(one) = rows.message().await.map_err(RpcError::from)? {
        exit = Exit::Findings;
        let row = serde_json::from_str(&one.row).unwrap_or(Value::String(one.row));
        let line = Kept { origin: one.origin, event_id: one.event_id, reason: one.reason, row };
        lines.print(&line)?;
    }
    Ok(exit)
}
