//! Looks at objects: what verify, monitor and reconcile have in common. content-service reads and
//! hashes; here rows and answers are compared, and what was found is recorded.

mod portions;

use std::{collections::HashMap, fmt, time::Duration};

use clap::Args;
use serde::Serialize;
use synap_proto::{
    content::{BatchHeadBlobsRequest, Blob, content_service_client::ContentServiceClient},
    entity::{
        BatchGetFilesToCheckRequest, CheckLevel, CheckOutcome, FileCheck, FileToCheck,
        GetVerificationSummaryRequest, GetVerificationSummaryResponse, ListFilesToCheckRequest,
        ListFilesToCheckResponse, RecordFileChecksRequest,
        verification_service_client::VerificationServiceClient,
    },
};
use synap_rpc::{Channel, RpcError};
use synap_types::{BlobKey, Checksum};
use tonic::Request;

pub(crate) use self::portions::portions;
use crate::{
    patience::patiently,
    services::{ContentUrl, EntityUrl},
};

/// A call may read a file of many GiB.
const LOOK_LIMIT: Duration = Duration::from_mins(30);

/// Where the two services are.
#[derive(Debug, Args)]
pub(crate) struct ServiceUrls {
    #[command(flatten)]
    pub(crate) entity: EntityUrl,
    #[command(flatten)]
    pub(crate) content: ContentUrl,
}

/// What is recorded of looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    All,
    /// A glance at a random file is not to take it off the end of the queue of those that are due.
    Findings,
    Nothing,
}

/// The services that know the two sides.
#[derive(Clone)]
pub(crate) struct Looks {
    pub(crate) rows: VerificationServiceClient<Channel>,
    pub(crate) objects: ContentServiceClient<Channel>,
}

/// Something that a person must look at.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    /// missing, size_differs, checksum_differs; no_file, content_differs; unknown, foreign; or what was
    /// done.
    pub(crate) what: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) entity_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) user_id: String,
    pub(crate) key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) detail: String,
}

impl Finding {
    /// Of an object that no row names.
    pub(crate) fn of_key(what: &'static str, key: String, detail: &str) -> Self {
        let (entity_id, user_id) = Default::default();
        Self { what, entity_id, user_id, key, detail: detail.to_owned() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, entity_id, user_id, key, detail } = self;
        write!(f, "{what}")?;
        if !entity_id.is_empty() {
            write!(f, ": {entity_id} of {user_id}")?;
        }
        if !key.is_empty() {
            write!(f, ": {key}")?;
        }
        if !detail.is_empty() {
            write!(f, " ({detail})")?;
        }
        Ok(())
    }
}

/// What came of looking at some files.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    pub(crate) looked: i64,
    /// Each was looked at twice, the second time with its row as it was then.
    pub(crate) findings: Vec<Finding>,
    /// Written again faster than one can look, or gone.
    pub(crate) changed: i64,
}

/// A file and what is under its key.
struct Look {
    file: FileToCheck,
    outcome: CheckOutcome,
    detail: String,
}

impl Looks {
    pub(crate) fn connect(urls: &ServiceUrls) -> anyhow::Result<Self> {
        let rows = urls.entity.connect()?;
        let objects = urls.content.connect()?;
        Ok(Self {
            rows: VerificationServiceClient::new(rows),
            objects: ContentServiceClient::new(objects),
        })
    }

    /// Some files, and where the next ones begin.
    pub(crate) async fn list(
        &self,
        request: &ListFilesToCheckRequest,
    ) -> Result<ListFilesToCheckResponse, RpcError> {
        patiently(|| async {
            Ok(self.rows.clone().list_files_to_check(request.clone()).await?.into_inner())
        })
        .await
    }

    /// How much there is, and what was found. Reads all rows.
    pub(crate) async fn summary(&self) -> Result<GetVerificationSummaryResponse, RpcError> {
        patiently(|| async {
            let mut request = Request::new(GetVerificationSummaryRequest { findings_only: false });
            request.set_timeout(LOOK_LIMIT);
            Ok(self.rows.clone().get_verification_summary(request).await?.into_inner())
        })
        .await
    }

    /// Looks at the objects of files, as many as [`portions`] gives. What is odd is looked at once
    /// more: its row may have been written since, and its old object be gone by right.
    pub(crate) async fn examine(
        &self,
        files: Vec<FileToCheck>,
        level: CheckLevel,
        record: Record,
    ) -> Result<Examined, RpcError> {
        let mut examined = Examined { looked: as_count(files.len()), ..Examined::default() };
        let looks = self.look(files, level).await?;
        let (sound, odd): (Vec<_>, Vec<_>) =
            looks.into_iter().partition(|look| look.outcome == CheckOutcome::Sound);
        let mut again: Vec<String> = odd.into_iter().map(|look| look.file.entity_id).collect();
        if record == Record::All {
            again.extend(self.record(&sound, level).await?);
        }
        if again.is_empty() {
            return Ok(examined);
        }
        let asked = as_count(again.len());
        let looks = self.look(self.files(again).await?, level).await?;
        let mut left = asked - as_count(looks.len());
        let recorded: Vec<Look> = looks
            .into_iter()
            .filter(|look| record == Record::All || look.outcome != CheckOutcome::Sound)
            .collect();
        let changed = match record {
            Record::Nothing => Vec::new(),
            _ => self.record(&recorded, level).await?,
        };
        left += as_count(changed.len());
        examined.changed = left;
        let is_finding = |look: &Look| {
            look.outcome != CheckOutcome::Sound && !changed.contains(&look.file.entity_id)
        };
        examined.findings = recorded.into_iter().filter(is_finding).map(Finding::from).collect();
        Ok(examined)
    }

    async fn files(&self, entity_ids: Vec<String>) -> Result<Vec<FileToCheck>, RpcError> {
        patiently(|| async {
            let request = BatchGetFilesToCheckRequest { entity_ids: entity_ids.clone() };
            Ok(self.rows.clone().batch_get_files_to_check(request).await?.into_inner().files)
        })
        .await
    }

    async fn look(
        &self,
        files: Vec<FileToCheck>,
        level: CheckLevel,
    ) -> Result<Vec<Look>, RpcError> {
        // V0.2 wrote keys that no store of ours can have; nobody can read what is there.
        let keys = files.iter().map(|file| file.key.clone());
        let keys: Vec<String> = keys.filter(|key| BlobKey::parse(&**key).is_ok()).collect();
        let found = self.heads(keys, level == CheckLevel::Checksum).await?;
        Ok(files.into_iter().map(|file| Look::of(file, &found, level)).collect())
    }

    /// What is under these keys.
    pub(crate) async fn heads(
        &self,
        keys: Vec<String>,
        with_sha256: bool,
    ) -> Result<HashMap<String, Blob>, RpcError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let lookups = patiently(|| async {
            let mut request =
                Request::new(BatchHeadBlobsRequest { keys: keys.clone(), with_sha256 });
            request.set_timeout(LOOK_LIMIT);
            Ok(self.objects.clone().batch_head_blobs(request).await?.into_inner().lookups)
        });
        let lookups = lookups.await?.into_iter();
        Ok(lookups.filter_map(|one| Some((one.key, one.blob?))).collect())
    }

    /// Returns the entities that name another key by now.
    async fn record(&self, looks: &[Look], level: CheckLevel) -> Result<Vec<String>, RpcError> {
        if looks.is_empty() {
            return Ok(Vec::new());
        }
        let check = |look: &Look| FileCheck {
            entity_id: look.file.entity_id.clone(),
            key: look.file.key.clone(),
            level: level.into(),
            outcome: look.outcome.into(),
        };
        let checks: Vec<_> = looks.iter().map(check).collect();
        patiently(|| async {
            let request = RecordFileChecksRequest { checks: checks.clone() };
            let answer = self.rows.clone().record_file_checks(request).await?;
            Ok(answer.into_inner().changed_entity_ids)
        })
        .await
    }
}

impl Look {
    fn of(file: FileToCheck, found: &HashMap<String, Blob>, level: CheckLevel) -> Self {
        let (outcome, detail) = match found.get(&file.key) {
            None if BlobKey::parse(&*file.key).is_err() => {
                (CheckOutcome::Missing, "no key that the store can have".to_owned())
            }
            None => (CheckOutcome::Missing, String::new()),
            Some(blob) if file.size.is_some_and(|size| size != blob.size) => {
                let size = file.size.unwrap_or_default();
                (CheckOutcome::SizeDiffers, format!("{} bytes, not {size}", blob.size))
            }
            Some(blob) if level == CheckLevel::Checksum => compare(&file.checksum, &blob.sha256),
            Some(_) => (CheckOutcome::Sound, String::new()),
        };
        Self { file, outcome, detail }
    }
}

fn compare(named: &str, sha256: &[u8]) -> (CheckOutcome, String) {
    match named.parse::<Checksum>() {
        Ok(checksum) if checksum.as_bytes() == sha256 => (CheckOutcome::Sound, String::new()),
        Ok(_) => (CheckOutcome::ChecksumDiffers, String::new()),
        Err(_) => (CheckOutcome::ChecksumDiffers, "the row has no checksum".to_owned()),
    }
}

impl From<Look> for Finding {
    fn from(look: Look) -> Self {
        let what = match look.outcome {
            CheckOutcome::SizeDiffers => "size_differs",
            CheckOutcome::ChecksumDiffers => "checksum_differs",
            CheckOutcome::Missing | CheckOutcome::Sound | CheckOutcome::Unspecified => "missing",
        };
        let FileToCheck { entity_id, user_id, key, .. } = look.file;
        Self { what, entity_id, user_id, key, detail: look.detail }
    }
}

pub(crate) fn as_count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
