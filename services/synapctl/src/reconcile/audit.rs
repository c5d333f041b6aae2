//! The audit, and what it may move aside.

use std::{collections::HashSet, fmt, time::Duration};

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use synap_proto::{
    content::{Blob, BlobMoveOutcome, ListBlobsRequest, QuarantineBlobsRequest},
    entity::{CheckLevel, CheckOrder, FindUnknownKeysRequest, ListFilesToCheckRequest},
    field,
};
use synap_rpc::RpcError;
use synap_types::{BlobKey, Clock as _, SystemClock};
use tonic::Request;

use super::ReconcileArgs;
use crate::{
    cli::Exit,
    looks::{Finding, Looks, Record, as_count, portions},
    output::{Lines, Progress},
    patience::patiently,
};

/// Files of a page.
const PAGE: i32 = 1_000;
/// Keys that are asked for right before they are moved.
const MOVED: usize = 100;
/// Keys that are asked for thoroughly at a time.
const SUSPECTS: usize = 1_000;
/// Strange names that are listed; of more only the number is told.
const FOREIGN: i64 = 100;
/// A listing takes as long as it takes, a table may be read as a whole, and blobs be large.
pub(super) const LONG: Duration = Duration::from_mins(50);

pub(super) async fn audit(
    args: &ReconcileArgs,
    looks: &Looks,
    lines: &mut Lines,
) -> anyhow::Result<Exit> {
    let age = TimeDelta::from_std(args.min_age)?;
    let before = SystemClock.now().checked_sub_signed(age).context("--min-age is too long")?;
    let mut audit = Audit {
        args,
        looks,
        lines,
        progress: Progress::new(),
        before,
        suspects: Vec::new(),
        strays: Vec::new(),
        total: Total { quarantining: args.quarantine, ..Total::default() },
    };
    // To its end, or nothing is moved.
    audit.store().await.context("the store was not listed to its end; nothing was moved")?;
    audit.rows().await?;
    if args.quarantine {
        audit.quarantine().await?;
    }
    let Audit { lines, progress, total, .. } = audit;
    progress.clear();
    lines.print(&total)?;
    let well = total.unknown + total.missing + total.size_differs + total.foreign == 0;
    Ok(if well { Exit::Well } else { Exit::Findings })
}

struct Audit<'a> {
    args: &'a ReconcileArgs,
    looks: &'a Looks,
    lines: &'a mut Lines,
    progress: Progress,
    /// What the store took before is old enough.
    before: DateTime<Utc>,
    /// Old enough, and unknown at first sight; as many as one question takes.
    suspects: Vec<String>,
    /// Those that really nobody knows; as many as may be moved.
    strays: Vec<String>,
    total: Total,
}

impl Audit<'_> {
    /// Lists all of the store.
    async fn store(&mut self) -> anyhow::Result<()> {
        let mut request =
            Request::new(ListBlobsRequest { with_foreign: true, ..ListBlobsRequest::default() });
        request.set_timeout(LONG);
        let listing = self.looks.objects.clone().list_blobs(request).await;
        let mut pages = listing.map_err(RpcError::from)?.into_inner();
        while let Some(page) = pages.message().await.map_err(RpcError::from)? {
            for name in page.foreign {
                self.total.foreign += 1;
                if self.total.foreign <= FOREIGN {
                    self.tell("foreign", name, "no key of ours; it is not touched")?;
                }
            }
            let (users, others): (Vec<_>, Vec<_>) =
                page.blobs.into_iter().partition(|blob| blob.key.starts_with("users/"));
            for blob in others {
                match BlobKey::parse(blob.key).ok().and_then(|key| key.out_of_quarantine()) {
                    Some(_) => self.total.in_quarantine += 1,
                    None => self.total.archive += 1,
                }
            }
            self.page(users).await?;
        }
        self.confirm().await
    }

    async fn page(&mut self, blobs: Vec<Blob>) -> anyhow::Result<()> {
        self.total.objects += as_count(blobs.len());
        let keys = blobs.iter().map(|blob| blob.key.clone()).collect();
        let unknown: HashSet<_> = unknown(self.looks, keys, false).await?.into_iter().collect();
        for blob in blobs {
            if !unknown.contains(&blob.key) {
                continue;
            }
            // One without a time is as good as new.
            let time = field::time("update_time", blob.update_time);
            if time.is_ok_and(|time| time < self.before) {
                self.suspects.push(blob.key);
                if self.suspects.len() == SUSPECTS {
                    self.confirm().await?;
                }
            } else {
                self.total.young += 1;
            }
        }
        let done = self.total.objects;
        self.progress.show("objects listed", done, done, done);
        Ok(())
    }

    /// Tells which of the suspects really nobody knows, and are still there.
    async fn confirm(&mut self) -> anyhow::Result<()> {
        let suspects = std::mem::take(&mut self.suspects);
        let unknown = unknown(self.looks, suspects, true).await?;
        let there = self.looks.heads(unknown.clone(), false).await?;
        for key in unknown.into_iter().filter(|key| there.contains_key(key)) {
            self.total.unknown += 1;
            self.tell("unknown", key.clone(), "no row names it")?;
            if self.strays.len() < usize::try_from(self.args.max_moves)? {
                self.strays.push(key);
            }
        }
        Ok(())
    }

    /// Asks for the object of every row.
    async fn rows(&mut self) -> anyhow::Result<()> {
        let level = CheckLevel::Head;
        let mut request = ListFilesToCheckRequest {
            order: CheckOrder::ById.into(),
            limit: PAGE,
            ..ListFilesToCheckRequest::default()
        };
        loop {
            let page = self.looks.list(&request).await?;
            let looks = self.looks.clone();
            let examine = |files| looks.examine(files, level, Record::Nothing);
            let mut done = stream::iter(portions(page.files, level).into_iter().map(examine))
                .buffer_unordered(self.args.concurrency.into());
            while let Some(examined) = done.try_next().await? {
                self.total.files += examined.looked;
                for finding in examined.findings {
                    match finding.what {
                        "missing" => self.total.missing += 1,
                        _ => self.total.size_differs += 1,
                    }
                    self.progress.clear();
                    self.lines.print(&finding)?;
                }
                let done = self.total.files;
                self.progress.show("objects asked for", done, done, done);
            }
            request.after_id = page.next_after_id;
            if request.after_id.is_empty() {
                return Ok(());
            }
        }
    }

    async fn quarantine(&mut self) -> anyhow::Result<()> {
        if self.total.unknown * 2 > self.total.objects {
            anyhow::bail!(
                "of {} objects no row names {}: is this the database of this store? Nothing was moved",
                self.total.objects,
                self.total.unknown
            );
        }
        for strays in std::mem::take(&mut self.strays).chunks(MOVED) {
            // A write may have come to name one: then it is no stray any more.
            let keys = unknown(self.looks, strays.to_vec(), false).await?;
            let mut request = Request::new(QuarantineBlobsRequest {
                keys,
                min_age: Some(self.args.min_age.try_into()?),
            });
            request.set_timeout(LONG);
            let answer = self.looks.objects.clone().quarantine_blobs(request).await;
            for one in answer.map_err(RpcError::from)?.into_inner().moves {
                let (what, detail) = match one.outcome() {
                    BlobMoveOutcome::Moved => ("quarantined", ""),
                    BlobMoveOutcome::TooYoung => ("left", "it is too young"),
                    BlobMoveOutcome::Taken => ("left", "another is in quarantine under its key"),
                    BlobMoveOutcome::Missing | BlobMoveOutcome::Unspecified => ("left", "gone"),
                };
                self.total.moved += i64::from(one.outcome() == BlobMoveOutcome::Moved);
                self.tell(what, one.key, detail)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, what: &'static str, key: String, detail: &str) -> anyhow::Result<()> {
        self.progress.clear();
        self.lines.print(&Finding::of_key(what, key, detail))
    }
}

/// Which of these keys no row names.
pub(crate) async fn unknown(
    looks: &Looks,
    keys: Vec<String>,
    thorough: bool,
) -> Result<Vec<String>, RpcError> {
    if keys.is_empty() {
        return Ok(keys);
    }
    patiently(|| async {
        let mut request = Request::new(FindUnknownKeysRequest { keys: keys.clone(), thorough });
        request.set_timeout(LONG);
        Ok(looks.rows.clone().find_unknown_keys(request).await?.into_inner().keys)
    })
    .await
}

/// What the audit came to.
#[derive(Debug, Default, Serialize)]
struct Total {
    /// Below users/.
    objects: i64,
    /// That no row names, and that are old enough.
    unknown: i64,
    /// That no row names, and that are younger: they are not touched.
    young: i64,
    moved: i64,
    in_quarantine: i64,
    /// Of events.
    archive: i64,
    /// Not ours.
    foreign: i64,
    /// Rows that name an object.
    files: i64,
    missing: i64,
    size_differs: i64,
    #[serde(skip)]
    quarantining: bool,
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, what) in [
            (self.objects, "objects below users/"),
            (self.unknown, "of them no row names"),
            (self.young, "no row names, and are too young to be touched"),
            (self.files, "rows name an object"),
            (self.missing, "of them name one that is missing"),
            (self.size_differs, "name one of another size"),
            (self.in_quarantine, "objects were in quarantine"),
            (self.archive, "objects are of the archive of events"),
            (self.foreign, "are not ours"),
        ] {
            writeln!(f, "{number:>12}  {what}")?;
        }
        if self.quarantining {
            write!(f, "{} objects were moved to quarantine", self.moved)
        } else if self.unknown > 0 {
            f.write_str("nothing was changed; --quarantine moves what no row names aside")
        } else {
            f.write_str("nothing was changed")
        }
    }
}
