//! The calls of the migration: those about single bodies share calls, and whatever passes is waited
//! for. A store that has too much to do is no error: it is asked again, later and less.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use synap_postgres::{GroupCommit, GroupCommitOptions, Rejected};
use synap_proto::{
    content::{BatchHeadBlobsRequest, Blob, content_service_client::ContentServiceClient},
    entity::{
        AttachBlobsRequest, AttachBlobsResponse, Attachment, GetContentMigrationRequest,
        GetContentMigrationResponse, ReleaseClaimsRequest, ReleasedClaim, UploadedBody,
        content_migration_service_client::ContentMigrationServiceClient,
    },
    reason,
};
use synap_rpc::{Channel, RpcError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{
    Governor,
    puts::{NewObject, Put, Puts},
};
use crate::services::{ContentUrl, EntityUrl};

/// What a store that is away is waited for.
const AWAY_LIMIT: Duration = Duration::from_mins(10);
/// The first pause of a repeated call, and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Objects of one look: content-service reads two of them at a time.
const LOOKS: GroupCommitOptions = GroupCommitOptions { queue: 10_000, workers: 8, max_batch: 16 };
/// Bodies of one pivot. Nobody waits for a single body, and a transaction costs far more than a row in
/// it: those that get there while one is under way are in the next, and that is so long after it.
const ATTACHES: GroupCommitOptions =
    GroupCommitOptions { queue: 10_000, workers: 1, max_batch: 100 };
const APART: Duration = Duration::from_millis(25);

/// Why a call has no answer: an error that many callers may share.
#[derive(Debug, Clone)]
pub(super) struct Trouble(Arc<RpcError>);

impl From<Rejected> for Trouble {
    fn from(rejected: Rejected) -> Self {
        RpcError::new(Code::Internal, reason::INTERNAL, rejected.to_string()).into()
    }
}

impl From<RpcError> for Trouble {
    fn from(error: RpcError) -> Self {
        Self(Arc::new(error))
    }
}

impl From<Trouble> for RpcError {
    fn from(Trouble(error): Trouble) -> Self {
        Arc::unwrap_or_clone(error)
    }
}

pub(super) type Grouped<Req, Out> = GroupCommit<String, Req, Out, Trouble>;

/// content-service and entity-service.
pub(crate) struct Services {
    puts: Puts,
    pub(super) entity: ContentMigrationServiceClient<Channel>,
    looks: Grouped<Look, Option<Blob>>,
    attaches: Grouped<UploadedBody, Attachment>,
    patience: Patience,
}

struct Look {
    key: String,
    with_sha256: bool,
}

impl Services {
    pub(crate) fn connect(
        content: &ContentUrl,
        entity: &EntityUrl,
        governor: &Arc<Governor>,
        stop: CancellationToken,
    ) -> anyhow::Result<Arc<Self>> {
        let puts = Puts::connect(content, governor.most())?;
        let channel = entity.connect()?;
        let entity = ContentMigrationServiceClient::new(channel);
        let patience = Patience { governor: Arc::clone(governor), stop };
        let looks = {
            let (stub, patience) =
                (ContentServiceClient::new(content.connect()?), patience.clone());
            let look = move |batch| look(stub.clone(), patience.clone(), batch);
            GroupCommit::new(LOOKS, |look: &Look| look.key.clone(), look)
        };
        let attaches = {
            let (stub, patience) = (entity.clone(), patience.clone());
            let attach = move |batch| {
                let (stub, patience) = (stub.clone(), patience.clone());
                async move {
                    let next = Instant::now() + APART;
                    let answers = attach(stub, patience, batch).await;
                    tokio::time::sleep_until(next).await;
                    answers
                }
            };
            GroupCommit::new(ATTACHES, |body: &UploadedBody| body.entity_id.clone(), attach)
        };
        Ok(Arc::new(Self { puts, entity, looks, attaches, patience }))
    }

    /// How far the migration is.
    pub(crate) async fn progress(&self) -> Result<GetContentMigrationResponse, RpcError> {
        self.patiently(|| async {
            let request = GetContentMigrationRequest {};
            Ok(self.entity.clone().get_content_migration(request).await?.into_inner())
        })
        .await
    }

    /// Writes an object under a key that was never used, and reads it back where that is wanted. Where a
    /// call was lost, what it has done is looked for before the body is sent again.
    pub(super) async fn put(&self, object: &NewObject) -> Result<Put, RpcError> {
        let lost = AtomicBool::new(false);
        let put = self.patiently(|| async {
            if lost.swap(false, Ordering::Relaxed)
                && let Some(blob) = self.find(object).await?
            {
                return Ok(Put::Done(blob.url));
            }
            let place = self.patience.governor.enter().await;
            let put = self.puts.put(object).await.inspect_err(|error| {
                let refused = [reason::STORE_UNAVAILABLE, reason::OVERLOADED];
                lost.store(!refused.contains(&&*error.reason), Ordering::Relaxed);
            })?;
            place.answered();
            Ok(put)
        });
        let put = put.await?;
        let done = matches!(put, Put::Done(_));
        if done && object.read_back && !object.is_small() && self.find(object).await?.is_none() {
            return Ok(Put::Different);
        }
        Ok(put)
    }

    /// An object, if it is there as it is to be.
    async fn find(&self, object: &NewObject) -> Result<Option<Blob>, RpcError> {
        let blob = self.look(&object.key, true).await?;
        Ok(blob.filter(|blob| blob.sha256 == object.checksum.as_bytes()[..]))
    }

    /// What is under a key; `None` if there is nothing.
    pub(super) async fn look(
        &self,
        key: &str,
        with_sha256: bool,
    ) -> Result<Option<Blob>, RpcError> {
        let look = Look { key: key.to_owned(), with_sha256 };
        Ok(self.looks.submit(look).await?)
    }

    /// Has an entity name its object.
    pub(super) async fn attach(&self, body: UploadedBody) -> Result<Attachment, RpcError> {
        Ok(self.attaches.submit(body).await?)
    }

    /// Gives a claim up.
    pub(super) async fn release(&self, claim: ReleasedClaim) -> Result<(), RpcError> {
        let request = ReleaseClaimsRequest { claims: vec![claim] };
        self.patiently(|| async {
            self.entity.clone().release_claims(request.clone()).await?;
            Ok(())
        })
        .await
    }

    /// Calls again while what is called has too much to do, or is away. Every call here may be repeated.
    pub(super) async fn patiently<T, F>(&self, call: impl FnMut() -> F) -> Result<T, RpcError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        self.patience.call(call).await
    }
}

#[derive(Clone)]
struct Patience {
    governor: Arc<Governor>,
    stop: CancellationToken,
}

impl Patience {
    async fn call<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, RpcError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let begun = Instant::now();
        let mut pause = PAUSE;
        loop {
            let error = match call().await.map_err(RpcError::from) {
                Err(error) if passes(&error) && begun.elapsed() < AWAY_LIMIT => error,
                outcome => return outcome,
            };
            self.governor.throttled();
            // They come back one after the other.
            let rest =
                error.retry_after.unwrap_or_default().max(pause).mul_f64(0.5 + fastrand::f64());
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.stop.cancelled() => return Err(error),
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}

/// Too much to do, away, or too slow this time.
fn passes(error: &RpcError) -> bool {
    matches!(
        error.code,
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled
    )
}

/// What is wrong with one body, and would be at each try.
pub(super) fn is_of_one_body(error: &RpcError) -> bool {
    matches!(error.code, Code::Internal | Code::InvalidArgument | Code::DataLoss | Code::OutOfRange)
}

async fn look(
    stub: ContentServiceClient<Channel>,
    patience: Patience,
    batch: Vec<Look>,
) -> Vec<Result<Option<Blob>, Trouble>> {
    let with_sha256 = batch.iter().any(|look| look.with_sha256);
    let count = batch.len();
    let keys: Vec<String> = batch.into_iter().map(|look| look.key).collect();
    let answer = patience.call(|| async {
        let request = BatchHeadBlobsRequest { keys: keys.clone(), with_sha256 };
        Ok(stub.clone().batch_head_blobs(request).await?.into_inner().lookups)
    });
    match answer.await {
        Ok(lookups) => lookups.into_iter().map(|lookup| Ok(lookup.blob)).collect(),
        Err(error) => vec![Err(error.into()); count],
    }
}

async fn attach(
    stub: ContentMigrationServiceClient<Channel>,
    patience: Patience,
    bodies: Vec<UploadedBody>,
) -> Vec<Result<Attachment, Trouble>> {
    let attach = |bodies: Vec<UploadedBody>| {
        let (stub, patience) = (stub.clone(), patience.clone());
        async move {
            let answer = patience.call(|| async {
                let request = AttachBlobsRequest { bodies: bodies.clone() };
                Ok(stub.clone().attach_blobs(request).await?.into_inner())
            });
            answer.await.map_err(Trouble::from)
        }
    };
    let answer = match attach(bodies.clone()).await {
        Err(Trouble(error)) if is_of_one_body(&error) && bodies.len() > 1 => {
            // Which one it is shows when each goes alone.
            let alone = stream::iter(bodies).then(|body| attach(vec![body]));
            let first = |answer: AttachBlobsResponse| answer.attachments().next();
            return alone.map_ok(|one| first(one).unwrap_or_default()).collect().await;
        }
        answer => answer,
    };
    match answer {
        Ok(answer) => answer.attachments().map(Ok).collect(),
        Err(trouble) => vec![Err(trouble); bodies.len()],
    }
}
