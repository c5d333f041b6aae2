//! What is looked at in one interval.

use std::{collections::HashSet, fmt};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use synap_proto::{
    content::ListBlobsRequest,
    entity::{
        CheckLevel, CheckOrder, CheckScope, FileToCheck, GetVerificationSummaryRequest,
        GetVerificationSummaryResponse, ListFilesToCheckRequest, ListFilesToCheckResponse,
    },
};
use synap_rpc::RpcError;

use super::MonitorArgs;
use crate::{
    looks::{Examined, Finding, Looks, Record, as_count, portions},
    output::Lines,
    patience::patiently,
    reconcile::unknown,
    statistics,
};

/// Keys that one interval takes from the store's listing; it may go past its end and take as many
/// again.
const LISTED: usize = 1_000;
/// Calls under way side by side.
const CONCURRENCY: usize = 8;
/// How often all files are counted, in intervals: that reads all rows.
const COUNT_EVERY: u32 = 60;

/// What one interval found.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Tick {
    /// Files that there are; counted now and then.
    pub(super) files: i64,
    sampled: i64,
    /// Whether that was all files, and not a sample.
    complete: bool,
    /// The share of the sample that is there, and as large as it should be.
    pub(super) sync_rate: f64,
    /// Unless the sample shows with 99 % confidence that the rate is not below the limit.
    pub(super) alert: bool,
    alert_below: f64,
    /// Files that were read.
    pub(super) looked: i64,
    /// Found wrong in this interval, each looked at twice.
    found: i64,
    /// What all looks so far found, and no later one took back.
    pub(super) missing: i64,
    pub(super) size_differs: i64,
    pub(super) checksum_differs: i64,
    /// Keys of the store that were looked up.
    listed: i64,
    /// Of the last round through the store, or this one: no row names them.
    pub(super) unknown: i64,
}

impl Tick {
    pub(super) fn is_well(&self) -> bool {
        !self.alert && self.found + self.missing + self.size_differs + self.checksum_differs == 0
    }
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sampled, files, looked, missing, checksum_differs, size_differs, .. } = self;
        if self.alert {
            write!(f, "ALERT: may be below {} %: ", self.alert_below)?;
        }
        write!(
            f,
            "sync rate {:.2} % ({sampled} of {files} files asked for); {looked} read, {} keys looked up; \
             known: {missing} missing in the store, {} in PostgreSQL, {size_differs} of another size, \
             {checksum_differs} of another checksum",
            self.sync_rate * 100.0,
            self.listed,
            self.unknown
        )
    }
}

/// What is remembered from one interval to the next.
pub(super) struct Watch<'a> {
    args: &'a MonitorArgs,
    looks: Looks,
    count: u32,
    files: i64,
    /// Where the search for files that nobody has looked at goes on.
    walk: String,
    /// The key that the next stretch of the listing comes after; `None` before the first.
    cursor: Option<String>,
    /// Keys that no row names, of this round through the store and the last.
    rounds: (i64, i64),
}

impl<'a> Watch<'a> {
    pub(super) fn new(args: &'a MonitorArgs, looks: Looks) -> Self {
        let (count, files, walk, cursor, rounds) = Default::default();
        Self { args, looks, count, files, walk, cursor, rounds }
    }

    pub(super) async fn look(&mut self, lines: &mut Lines) -> anyhow::Result<Tick> {
        if self.count.is_multiple_of(COUNT_EVERY) {
            self.files = self.looks.summary().await?.with_file;
        }
        self.count += 1;
        let alert_below = self.args.alert_below;
        let mut tick = Tick { files: self.files, alert_below, ..Tick::default() };
        let mut findings = self.sample(&mut tick).await?;
        let due = self.due().await?;
        let read = self.examine(due, CheckLevel::Checksum, Record::All).await?;
        tick.looked = read.looked;
        findings.extend(read.findings);
        let mut told = HashSet::new();
        findings.retain(|finding| told.insert(finding.entity_id.clone()));
        findings.extend(self.stretch(&mut tick).await?);
        tick.found = as_count(findings.len());
        for finding in findings {
            lines.print(&finding)?;
        }
        let known = self.known_findings().await?;
        (tick.missing, tick.size_differs) = (known.missing, known.size_differs);
        tick.checksum_differs = known.checksum_differs;
        Ok(tick)
    }

    /// The sync rate, of files drawn at random.
    async fn sample(&mut self, tick: &mut Tick) -> Result<Vec<Finding>, RpcError> {
        let drawn = self.list(CheckOrder::Random, self.args.sample).await?;
        let (drawn, complete) = (drawn.files, drawn.complete);
        if self.cursor.is_none() {
            self.cursor = Some(drawn.first().map_or_else(String::new, |file| file.key.clone()));
        }
        let answer = self.examine(drawn, CheckLevel::Head, Record::Findings).await?;
        (tick.sampled, tick.complete) = (answer.looked - answer.changed, complete);
        let bad = as_count(answer.findings.len()).unsigned_abs();
        (tick.sync_rate, tick.alert) = statistics::judge(
            bad,
            tick.sampled.unsigned_abs(),
            complete,
            self.args.alert_below / 100.0,
        );
        Ok(answer.findings)
    }

    /// What is to be read: the newest; and of the others those that nobody has looked at, then those
    /// that were looked at longest ago.
    async fn due(&mut self) -> Result<Vec<FileToCheck>, RpcError> {
        let mut due = self.list(CheckOrder::Newest, self.args.newest).await?.files;
        let never = ListFilesToCheckRequest {
            order: CheckOrder::ById.into(),
            scope: CheckScope::NeverChecked.into(),
            limit: self.args.batch,
            after_id: self.walk.clone(),
            ..ListFilesToCheckRequest::default()
        };
        let never = self.looks.list(&never).await?;
        self.walk = never.next_after_id;
        let left = self.args.batch - i32::try_from(never.files.len()).unwrap_or(i32::MAX);
        due.extend(never.files);
        if left > 0 {
            due.extend(self.list(CheckOrder::LeastRecentlyChecked, left).await?.files);
        }
        let mut seen = HashSet::new();
        due.retain(|file| seen.insert(file.entity_id.clone()));
        Ok(due)
    }

    /// Which keys of the next stretch of the store no row names.
    async fn stretch(&mut self, tick: &mut Tick) -> Result<Vec<Finding>, RpcError> {
        let begun = self.cursor.take().unwrap_or_default();
        let mut keys = self.keys(&begun).await?;
        let mut strays = Vec::new();
        if keys.len() < LISTED {
            // The end: the next round begins, as far as it was not just seen.
            strays = self.strays(keys, tick).await?;
            self.rounds = (0, self.rounds.0 + as_count(strays.len()));
            keys = self.keys("").await?;
            if !begun.is_empty() {
                keys.retain(|key| *key <= begun);
            }
        }
        self.cursor = Some(keys.last().cloned().unwrap_or_default());
        let more = self.strays(keys, tick).await?;
        self.rounds.0 += as_count(more.len());
        strays.extend(more);
        tick.unknown = self.rounds.0.max(self.rounds.1).max(as_count(strays.len()));
        Ok(strays)
    }

    async fn strays(&self, keys: Vec<String>, tick: &mut Tick) -> Result<Vec<Finding>, RpcError> {
        tick.listed += as_count(keys.len());
        let suspects = unknown(&self.looks, keys, false).await?;
        let unknown = unknown(&self.looks, suspects, true).await?;
        // What was deleted meanwhile was right to have no row.
        let there = self.looks.heads(unknown.clone(), false).await?;
        let strays = unknown.into_iter().filter(|key| there.contains_key(key));
        Ok(strays.map(|key| Finding::of_key("unknown", key, "no row names it")).collect())
    }

    /// The next keys of the store's listing; fewer only at its end.
    async fn keys(&self, after: &str) -> Result<Vec<String>, RpcError> {
        patiently(|| async {
            let start_after = after.to_owned();
            let request = ListBlobsRequest { start_after, ..ListBlobsRequest::default() };
            let mut pages = self.looks.objects.clone().list_blobs(request).await?.into_inner();
            let mut keys = Vec::new();
            while keys.len() < LISTED
                && let Some(page) = pages.message().await?
            {
                keys.extend(page.blobs.into_iter().map(|blob| blob.key));
            }
            keys.truncate(LISTED);
            Ok(keys)
        })
        .await
    }

    async fn list(
        &self,
        order: CheckOrder,
        limit: i32,
    ) -> Result<ListFilesToCheckResponse, RpcError> {
        let order = order.into();
        self.looks.list(&ListFilesToCheckRequest { order, limit, ..Default::default() }).await
    }

    async fn examine(
        &self,
        files: Vec<FileToCheck>,
        level: CheckLevel,
        record: Record,
    ) -> Result<Examined, RpcError> {
        let portions = portions(files, level).into_iter();
        let looks = portions.map(|files| self.looks.examine(files, level, record));
        let looks = stream::iter(looks).buffer_unordered(CONCURRENCY);
        looks
            .try_fold(Examined::default(), async |mut all, one| {
                all.looked += one.looked;
                all.changed += one.changed;
                all.findings.extend(one.findings);
                Ok(all)
            })
            .await
    }

    async fn known_findings(&self) -> Result<GetVerificationSummaryResponse, RpcError> {
        patiently(|| async {
            let request = GetVerificationSummaryRequest { findings_only: true };
            Ok(self.looks.rows.clone().get_verification_summary(request).await?.into_inner())
        })
        .await
    }
}
