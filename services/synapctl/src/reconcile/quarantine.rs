//! Out of quarantine: back, or gone for good.

use std::fmt;

use anyhow::Context as _;
use chrono::TimeDelta;
use serde::Serialize;
use synap_proto::{
    content::{Blob, BlobMoveOutcome, DeleteBlobsRequest, ListBlobsRequest, RestoreBlobsRequest},
    field,
};
use synap_rpc::RpcError;
use synap_types::{BlobKey, Clock as _, SystemClock};
use tonic::Request;

use super::{
    ReconcileArgs,
    audit::{LONG, unknown},
};
use crate::{
    cli::Exit,
    looks::{Finding, Looks},
    output::Lines,
};

/// Blobs of one call.
const BATCH: usize = 100;

pub(super) async fn restore(
    args: &ReconcileArgs,
    looks: &Looks,
    lines: &mut Lines,
) -> anyhow::Result<Exit> {
    let mut keys = args.key.clone();
    if keys.is_empty() {
        keys = listed(args, looks, |_| true).await?;
    }
    let mut total = Total { what: "moved back", ..Total::default() };
    for keys in keys.chunks(BATCH) {
        let mut request = Request::new(RestoreBlobsRequest { keys: keys.to_vec() });
        request.set_timeout(LONG);
        let answer = looks.objects.clone().restore_blobs(request).await.map_err(RpcError::from)?;
        for one in answer.into_inner().moves {
            let (what, detail) = match one.outcome() {
                BlobMoveOutcome::Moved => ("restored", ""),
                BlobMoveOutcome::Taken => ("left", "other bytes are under its key by now"),
                _ => ("left", "it is not in quarantine"),
            };
            total.count(one.outcome() == BlobMoveOutcome::Moved);
            lines.print(&Finding::of_key(what, one.key, detail))?;
        }
    }
    total.end(lines)
}

pub(super) async fn purge(
    args: &ReconcileArgs,
    looks: &Looks,
    lines: &mut Lines,
) -> anyhow::Result<Exit> {
    let what = if args.yes { "deleted for good" } else { "would be deleted; nothing was changed" };
    let mut total = Total { what, ..Total::default() };
    let age = TimeDelta::from_std(args.older_than)?;
    let before = SystemClock.now().checked_sub_signed(age).context("--older-than is too long")?;
    let is_old =
        |blob: Blob| field::time("update_time", blob.update_time).is_ok_and(|time| time < before);
    let keys = listed(args, looks, is_old).await?;
    for keys in keys.chunks(BATCH) {
        // What a row names by now is missed by somebody.
        let strays = unknown(looks, keys.to_vec(), true).await?;
        for key in keys.iter().filter(|key| !strays.contains(key)) {
            total.count(false);
            let key = key.clone();
            lines.print(&Finding::of_key(
                "left",
                key,
                "a row names it; --restore brings it back",
            ))?;
        }
        if args.yes {
            let there = |key: &String| BlobKey::parse(&**key).ok()?.in_quarantine();
            let there = strays.iter().filter_map(there).map(|key| key.to_string()).collect();
            let mut request = Request::new(DeleteBlobsRequest { keys: there });
            request.set_timeout(LONG);
            looks.objects.clone().delete_blobs(request).await.map_err(RpcError::from)?;
        }
        let what = if args.yes { "purged" } else { "would_purge" };
        for key in strays {
            total.count(true);
            lines.print(&Finding::of_key(what, key, ""))?;
        }
    }
    total.end(lines)
}

/// The keys that blobs in quarantine had, as many as may be moved. A blob's time there is that of its
/// copy.
async fn listed(
    args: &ReconcileArgs,
    looks: &Looks,
    wanted: impl Fn(Blob) -> bool,
) -> anyhow::Result<Vec<String>> {
    let prefix = "quarantine/".to_owned();
    let mut request = Request::new(ListBlobsRequest { prefix, ..ListBlobsRequest::default() });
    request.set_timeout(LONG);
    let listing = looks.objects.clone().list_blobs(request).await.map_err(RpcError::from)?;
    let (mut pages, most) = (listing.into_inner(), usize::try_from(args.max_moves)?);
    let mut keys = Vec::new();
    while keys.len() < most
        && let Some(page) = pages.message().await.map_err(RpcError::from)?
    {
        for blob in page.blobs {
            let key = BlobKey::parse(&*blob.key).ok().and_then(|key| key.out_of_quarantine());
            if let Some(key) = key.filter(|_| wanted(blob)) {
                keys.push(key.to_string());
            }
        }
    }
    keys.truncate(most);
    Ok(keys)
}

#[derive(Debug, Default, Serialize)]
struct Total {
    done: i64,
    left: i64,
    #[serde(skip)]
    what: &'static str,
}

impl Total {
    fn count(&mut self, done: bool) {
        self.done += i64::from(done);
        self.left += i64::from(!done);
    }

    fn end(&self, lines: &mut Lines) -> anyhow::Result<Exit> {
        lines.print(self)?;
        Ok(if self.left == 0 { Exit::Well } else { Exit::Findings })
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, left, what } = self;
        write!(f, "{done} objects {what}; {left} left")
    }
}
