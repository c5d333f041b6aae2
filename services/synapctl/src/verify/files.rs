//! `synapctl verify`, of files.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use synap_proto::entity::{
    CheckLevel, CheckOrder, CheckScope, FileToCheck, GetStorageStatusRequest,
    GetVerificationSummaryResponse, ListContentDifferencesRequest, ListContentDifferencesResponse,
    ListFilesToCheckRequest, storage_service_client::StorageServiceClient,
};
use synap_rpc::RpcError;
use tonic::Request;

use super::{
    Level, VerifyArgs,
    report::{Report, Sampled},
};
use crate::{
    cli::Exit,
    looks::{Examined, Finding, Looks, Record, portions},
    output::{Lines, Progress},
    patience::patiently,
    phase,
    services::EntityUrl,
};

/// Files of a page.
const PAGE: i32 = 1_000;
/// What reads whole tables may take so long.
const LONG: std::time::Duration = std::time::Duration::from_mins(10);

pub(super) async fn verify(args: &VerifyArgs) -> anyhow::Result<Exit> {
    let looks = Looks::connect(&args.urls)?;
    let before = looks.summary().await?;
    let mut run = Run {
        args,
        looks,
        lines: args.report.lines()?,
        progress: Progress::new(),
        report: Report::new(args.level == Level::Checksum),
    };
    run.files(total(args, &before)).await?;
    run.contents(before.entities).await?;
    run.progress.clear();
    let Run { looks, mut lines, mut report, .. } = run;
    let phase = phase(&args.urls.entity).await?;
    report.conclude(&looks.summary().await?, phase);
    lines.print(&report)?;
    Ok(if report.has_findings() { Exit::Findings } else { Exit::Well })
}

struct Run<'a> {
    args: &'a VerifyArgs,
    looks: Looks,
    lines: Lines,
    progress: Progress,
    report: Report,
}

impl Run<'_> {
    /// Walks through all files; several portions are looked at side by side, and the next page is
    /// asked for when the one before is done.
    async fn files(&mut self, total: i64) -> anyhow::Result<()> {
        let level = match self.args.level {
            Level::Head => CheckLevel::Head,
            Level::Checksum => CheckLevel::Checksum,
        };
        let mut request = request(self.args, level);
        loop {
            let page = self.looks.list(&request).await?;
            let (files, without): (Vec<_>, Vec<_>) =
                page.files.into_iter().partition(|file| !file.key.is_empty());
            for file in without {
                self.tell(&without_file(file))?;
            }
            let looks = self.looks.clone();
            let portions = portions(files, level).into_iter();
            let examine = |files| looks.examine(files, level, Record::All);
            let mut done =
                stream::iter(portions.map(examine)).buffer_unordered(self.args.concurrency.into());
            while let Some(examined) = done.try_next().await? {
                self.add(&examined)?;
                self.progress.show("objects", self.report.looked, total, self.report.looked);
            }
            request.after_id = page.next_after_id;
            if request.after_id.is_empty() {
                break;
            }
        }
        if self.args.sample.is_some() {
            self.report.sampled = Some(Sampled::of(self.report.looked, self.report.bad()));
        }
        Ok(())
    }

    /// Compares content blocks with rows, where they are still written.
    async fn contents(&mut self, total: i64) -> anyhow::Result<()> {
        let mut after_id = String::new();
        loop {
            let page = differences(&self.looks, &after_id).await?;
            self.report.content_compared = page
                .applies
                .then_some(self.report.content_compared.unwrap_or_default() + page.compared);
            for one in page.differences {
                self.tell(&Finding {
                    what: "content_differs",
                    entity_id: one.entity_id,
                    user_id: one.user_id,
                    key: one.key,
                    detail: "its content block is not what its row says".to_owned(),
                })?;
            }
            let done = self.report.content_compared.unwrap_or_default();
            self.progress.show("content blocks", done, total, done);
            after_id = page.next_after_id;
            if after_id.is_empty() {
                return Ok(());
            }
        }
    }

    fn add(&mut self, examined: &Examined) -> anyhow::Result<()> {
        self.report.looked += examined.looked;
        self.report.changed += examined.changed;
        examined.findings.iter().try_for_each(|finding| self.tell(finding))
    }

    fn tell(&mut self, finding: &Finding) -> anyhow::Result<()> {
        self.progress.clear();
        self.report.count(finding);
        self.lines.print(finding)
    }
}

fn request(args: &VerifyArgs, level: CheckLevel) -> ListFilesToCheckRequest {
    let everything = args.all || args.sample.is_some();
    let scope = if everything { CheckScope::Unspecified } else { CheckScope::NotSound };
    ListFilesToCheckRequest {
        order: CheckOrder::ById.into(),
        limit: PAGE,
        scope: scope.into(),
        level: level.into(),
        sound_within: args.since.and_then(|age| age.try_into().ok()),
        sample_share: args.sample.map_or(0.0, |percent| percent / 100.0),
        sample_seed: fastrand::i64(..),
        // A sample is of files.
        with_missing_files: args.sample.is_none(),
        ..ListFilesToCheckRequest::default()
    }
}

/// How many files there will be to look at, for who waits: at most so many.
fn total(args: &VerifyArgs, before: &GetVerificationSummaryResponse) -> i64 {
    let sound = match args.level {
        Level::Head => before.sound,
        Level::Checksum => before.verified,
    };
    if let Some(percent) = args.sample {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "a guess"
        )]
        return (before.with_file as f64 * percent / 100.0) as i64;
    }
    before.with_file - if args.all || args.since.is_some() { 0 } else { sound }
}

fn without_file(file: FileToCheck) -> Finding {
    Finding {
        what: "no_file",
        entity_id: file.entity_id,
        user_id: file.user_id,
        key: String::new(),
        detail: "its text is in its content block only".to_owned(),
    }
}

async fn differences(
    looks: &Looks,
    after_id: &str,
) -> Result<ListContentDifferencesResponse, RpcError> {
    patiently(|| async {
        let after_id = after_id.to_owned();
        let mut request = Request::new(ListContentDifferencesRequest { after_id });
        request.set_timeout(LONG);
        Ok(looks.rows.clone().list_content_differences(request).await?.into_inner())
    })
    .await
}

async fn phase(entity: &EntityUrl) -> anyhow::Result<&'static str> {
    let client = StorageServiceClient::new(entity.connect()?);
    let status = patiently(|| async {
        Ok(client.clone().get_storage_status(GetStorageStatusRequest {}).await?.into_inner())
    });
    Ok(phase::name(status.await?.phase()))
}
