//! synap.entity.v1.VerificationService

use std::time::Duration;

use synap_proto::{
    entity::{
        self as pb, BatchGetFilesToCheckRequest, BatchGetFilesToCheckResponse, CheckLevel,
        CheckOrder, CheckOutcome, CheckScope, FindUnknownKeysRequest, FindUnknownKeysResponse,
        GetVerificationSummaryRequest, GetVerificationSummaryResponse,
        ListContentDifferencesRequest, ListContentDifferencesResponse, ListFilesToCheckRequest,
        ListFilesToCheckResponse, RecordFileChecksRequest, RecordFileChecksResponse,
        verification_service_server::VerificationService,
    },
    field::{self, Checked, Violation},
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    domain::{
        ContentDifference, FileCheck, FileToCheck, Level, Outcome, Sample, Scope,
        VerificationSummary, Walk,
    },
    error::Error,
    store::Store,
};

/// Files, checks or keys of one call at most.
const MAX: usize = 1_000;
/// Bytes of a key that may be in a row: V0.2 did not bound them, S3 does.
const MAX_KEY_BYTES: usize = 1_024;

/// What there is to verify, and what was found.
pub(crate) struct Verification {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl VerificationService for Verification {
    async fn list_files_to_check(
        &self,
        request: Request<ListFilesToCheckRequest>,
    ) -> Result<Response<ListFilesToCheckResponse>, Status> {
        let request = request.into_inner();
        let limit = field::within("limit", request.limit, 1, 1_000).map_err(Error::from)?.into();
        let mut answer = ListFilesToCheckResponse::default();
        let files = match request.order() {
            CheckOrder::Unspecified => {
                return Err(Error::from(Violation::new("order", "is required")).into());
            }
            CheckOrder::ById => {
                let walk = walk(&request, limit).map_err(Error::from)?;
                let walked = self.store.walk_files(&walk).await?;
                answer.next_after_id = walked.next.map_or_else(String::new, |id| id.to_string());
                walked.files
            }
            CheckOrder::LeastRecentlyChecked => self.store.least_recently_checked(limit).await?,
            CheckOrder::Newest => self.store.newest_files(limit).await?,
            CheckOrder::Random => {
                let (files, complete) = self.store.random_files(limit).await?;
                answer.complete = complete;
                files
            }
        };
        answer.files = files.into_iter().map(Into::into).collect();
        Ok(Response::new(answer))
    }

    async fn batch_get_files_to_check(
        &self,
        request: Request<BatchGetFilesToCheckRequest>,
    ) -> Result<Response<BatchGetFilesToCheckResponse>, Status> {
        let ids = ids(&request.into_inner().entity_ids).map_err(Error::from)?;
        let files = self.store.files_to_check(&ids).await?.into_iter().map(Into::into).collect();
        Ok(Response::new(BatchGetFilesToCheckResponse { files }))
    }

    async fn record_file_checks(
        &self,
        request: Request<RecordFileChecksRequest>,
    ) -> Result<Response<RecordFileChecksResponse>, Status> {
        let checks = checks(request.into_inner().checks).map_err(Error::from)?;
        let changed = self.store.record_checks(&checks).await?;
        let changed_entity_ids = changed.into_iter().map(|id| id.to_string()).collect();
        Ok(Response::new(RecordFileChecksResponse { changed_entity_ids }))
    }

    async fn get_verification_summary(
        &self,
        request: Request<GetVerificationSummaryRequest>,
    ) -> Result<Response<GetVerificationSummaryResponse>, Status> {
        let summary = if request.into_inner().findings_only {
            self.store.known_findings().await?
        } else {
            self.store.verification_summary().await?
        };
        Ok(Response::new(summary.into()))
    }

    async fn list_content_differences(
        &self,
        request: Request<ListContentDifferencesRequest>,
    ) -> Result<Response<ListContentDifferencesResponse>, Status> {
        let after = field::optional_uuid("after_id", &request.into_inner().after_id);
        let after = after.map_err(Error::from)?.unwrap_or_default();
        let found = self.store.content_differences(after).await?;
        Ok(Response::new(ListContentDifferencesResponse {
            differences: found.differences.into_iter().map(Into::into).collect(),
            compared: found.compared,
            next_after_id: found.next.map_or_else(String::new, |id| id.to_string()),
            applies: found.applies,
        }))
    }

    async fn find_unknown_keys(
        &self,
        request: Request<FindUnknownKeysRequest>,
    ) -> Result<Response<FindUnknownKeysResponse>, Status> {
        let FindUnknownKeysRequest { keys, thorough } = request.into_inner();
        check_keys(&keys).map_err(Error::from)?;
        let keys = self.store.unknown_keys(&keys, thorough).await?;
        Ok(Response::new(FindUnknownKeysResponse { keys }))
    }
}

fn walk(request: &ListFilesToCheckRequest, limit: i64) -> Checked<Walk> {
    let scope = match request.scope() {
        CheckScope::Unspecified => Scope::All,
        CheckScope::NotSound => Scope::NotSound {
            level: level("level", request.level())?,
            within: request
                .sound_within
                .map(|within| duration("sound_within", within))
                .transpose()?,
        },
        CheckScope::NeverChecked => Scope::NeverChecked,
    };
    Ok(Walk {
        after: field::optional_uuid("after_id", &request.after_id)?.unwrap_or_default(),
        limit,
        scope,
        sample: sample(request.sample_share, request.sample_seed)?,
        with_missing_files: request.with_missing_files,
    })
}

fn sample(share: f64, seed: i64) -> Checked<Option<Sample>> {
    if !(0.0..=1.0).contains(&share) {
        return Err(Violation::new("sample_share", "must be between 0 and 1"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "between 0 and 2^32")]
    let threshold = (share * 4_294_967_296.0) as i64;
    Ok((share > 0.0).then_some(Sample { threshold, seed }))
}

fn duration(name: &str, message: prost_types::Duration) -> Checked<Duration> {
    Duration::try_from(message).map_err(|_| Violation::new(name, "must not be negative"))
}

fn level(name: &str, message: CheckLevel) -> Checked<Level> {
    match message {
        CheckLevel::Unspecified => Err(Violation::new(name, "is required")),
        CheckLevel::Head => Ok(Level::Head),
        CheckLevel::Checksum => Ok(Level::Checksum),
    }
}

fn ids(texts: &[String]) -> Checked<Vec<Uuid>> {
    field::length("entity_ids", texts, 0, MAX)?;
    let id = |(at, text): (usize, &String)| field::uuid(&format!("entity_ids[{at}]"), text);
    texts.iter().enumerate().map(id).collect()
}

fn checks(messages: Vec<pb::FileCheck>) -> Checked<Vec<FileCheck>> {
    field::length("checks", &messages, 0, MAX)?;
    let mut seen = std::collections::HashSet::new();
    let each = messages.into_iter().enumerate().map(|(at, message)| {
        let check = check(message).map_err(|why| why.within(format!("checks[{at}]")))?;
        if !seen.insert(check.entity_id) {
            let path = format!("checks[{at}].entity_id");
            return Err(Violation::new(path, "is there twice"));
        }
        Ok(check)
    });
    each.collect()
}

fn check(message: pb::FileCheck) -> Checked<FileCheck> {
    let outcome = match message.outcome() {
        CheckOutcome::Unspecified => return Err(Violation::new("outcome", "is required")),
        CheckOutcome::Sound => Outcome::Sound,
        CheckOutcome::Missing => Outcome::Missing,
        CheckOutcome::SizeDiffers => Outcome::SizeDiffers,
        CheckOutcome::ChecksumDiffers => Outcome::ChecksumDiffers,
    };
    Ok(FileCheck {
        entity_id: field::uuid("entity_id", &message.entity_id)?,
        level: level("level", message.level())?,
        outcome,
        key: message.key,
    })
}

fn check_keys(keys: &[String]) -> Checked<()> {
    field::length("keys", keys, 0, MAX)?;
    let too_long = keys.iter().position(|key| key.len() > MAX_KEY_BYTES);
    too_long.map_or(Ok(()), |at| {
        let what = format!("must have {MAX_KEY_BYTES} bytes at most");
        Err(Violation::new(format!("keys[{at}]"), what))
    })
}

impl From<FileToCheck> for pb::FileToCheck {
    fn from(file: FileToCheck) -> Self {
        Self {
            entity_id: file.entity_id.to_string(),
            user_id: file.user_id,
            entity_type: file.entity_type,
            key: file.key.unwrap_or_default(),
            size: file.size,
            checksum: file.checksum.unwrap_or_default(),
        }
    }
}

impl From<ContentDifference> for pb::ContentDifference {
    fn from(difference: ContentDifference) -> Self {
        let ContentDifference { entity_id, user_id, key } = difference;
        Self { entity_id: entity_id.to_string(), user_id, key }
    }
}

impl From<VerificationSummary> for GetVerificationSummaryResponse {
    fn from(summary: VerificationSummary) -> Self {
        Self {
            entities: summary.entities,
            without_file: summary.without_file,
            with_file_url: summary.with_file_url,
            with_file: summary.with_file,
            sound: summary.sound,
            verified: summary.verified,
            missing: summary.missing,
            size_differs: summary.size_differs,
            checksum_differs: summary.checksum_differs,
            oldest_check_time: summary.oldest_check.map(field::timestamp),
            open_claims: summary.open_claims,
        }
    }
}
