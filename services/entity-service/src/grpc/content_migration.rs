//! synap.entity.v1.ContentMigrationService

use std::{collections::HashMap, pin::Pin};

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use synap_proto::{
    entity::{
        AttachBlobsRequest, AttachBlobsResponse, Attachment as Answer, BlobCheck,
        ClaimBodiesRequest, ClaimBodiesResponse, ClaimedBody, GetContentMigrationRequest,
        GetContentMigrationResponse, LookedAt, Notable as Named, ReleaseClaimsRequest,
        ReleaseClaimsResponse, ReleasedClaim, RenewClaimsRequest, RenewClaimsResponse,
        UploadedBody, content_migration_service_server::ContentMigrationService,
    },
    field::{self, Checked, Violation},
};
use synap_rpc::CHUNK_BYTES;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    domain::{Among, Attachment, Check, Claim, Looked, Notable, Released, Uploaded, Wanted},
    error::Error,
    store::Store,
};

/// Bodies of one call at most.
const MAX_BODIES: usize = 1_000;
/// Bytes of bodies that are read at once.
const READ_BYTES: i64 = 2 * 1024 * 1024;
/// Larger ones are read in pieces.
#[expect(clippy::cast_possible_wrap, reason = "half a MiB")]
const WHOLE_BYTES: i64 = CHUNK_BYTES as i64;

/// Brings the bodies of V0.2 into the object store.
pub(crate) struct ContentMigration {
    pub(crate) store: Store,
}

type Messages = Pin<Box<dyn Stream<Item = Result<ClaimBodiesResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ContentMigrationService for ContentMigration {
    type ClaimBodiesStream = Messages;

    async fn claim_bodies(
        &self,
        request: Request<ClaimBodiesRequest>,
    ) -> Result<Response<Messages>, Status> {
        let wanted = Wanted::try_from(request.into_inner()).map_err(Error::from)?;
        let mut looked = self.store.claim_bodies(&wanted).await?;
        let claims = std::mem::take(&mut looked.claims);
        let mut first = LookedAt::from(looked);
        first.claimed_ids = claims.iter().map(|claim| claim.entity_id.to_string()).collect();
        let first = ClaimBodiesResponse { looked: Some(first), ..ClaimBodiesResponse::default() };
        let (store, dry_run) = (self.store.clone(), wanted.dry_run);
        let bodies = stream::iter(portions(claims, dry_run))
            .map(move |portion| portion.read(store.clone()))
            .flatten();
        Ok(Response::new(stream::iter([Ok(first)]).chain(bodies.map_err(Status::from)).boxed()))
    }

    async fn renew_claims(
        &self,
        request: Request<RenewClaimsRequest>,
    ) -> Result<Response<RenewClaimsResponse>, Status> {
        let RenewClaimsRequest { claimant_id, entity_ids: ids } = request.into_inner();
        let claimant = field::uuid("claimant_id", &claimant_id).map_err(Error::from)?;
        let ids = entity_ids(&ids).map_err(Error::from)?;
        let lease = self.store.renew_claims(claimant, &ids).await?;
        Ok(Response::new(RenewClaimsResponse { lease: lease.try_into().ok() }))
    }

    async fn attach_blobs(
        &self,
        request: Request<AttachBlobsRequest>,
    ) -> Result<Response<AttachBlobsResponse>, Status> {
        let bodies = uploaded(request.into_inner().bodies).map_err(Error::from)?;
        let attachments = self.store.attach_blobs(&bodies).await?;
        let answer = |one| Answer::from(one).into();
        let attachments = attachments.into_iter().map(answer).collect();
        Ok(Response::new(AttachBlobsResponse { attachments }))
    }

    async fn release_claims(
        &self,
        request: Request<ReleaseClaimsRequest>,
    ) -> Result<Response<ReleaseClaimsResponse>, Status> {
        let claims = released(request.into_inner().claims).map_err(Error::from)?;
        self.store.release_claims(&claims).await?;
        Ok(Response::new(ReleaseClaimsResponse {}))
    }

    async fn get_content_migration(
        &self,
        _: Request<GetContentMigrationRequest>,
    ) -> Result<Response<GetContentMigrationResponse>, Status> {
        let progress = self.store.content_migration().await?;
        Ok(Response::new(GetContentMigrationResponse {
            estimated_entities: progress.estimated_entities,
            claims: progress.claims,
            failed: progress.failed.into_iter().collect(),
        }))
    }
}

/// Bodies that are read at once.
enum Portion {
    /// Nobody needs them.
    Unread(Vec<Claim>),
    Whole(Vec<Claim>),
    Large(Claim),
}

/// Cuts claims into portions, in their order, as far as that can be.
fn portions(claims: Vec<Claim>, dry_run: bool) -> Vec<Portion> {
    let (mut unread, mut portions, mut whole, mut bytes) = (vec![], vec![], vec![], 0);
    for claim in claims {
        if dry_run && claim.existing.is_none() {
            unread.push(claim);
            continue;
        }
        if claim.size > WHOLE_BYTES {
            portions.push(Portion::Large(claim));
            continue;
        }
        bytes += claim.size;
        whole.push(claim);
        if bytes >= READ_BYTES {
            portions.push(Portion::Whole(std::mem::take(&mut whole)));
            bytes = 0;
        }
    }
    portions.extend([Portion::Whole(whole), Portion::Unread(unread)]);
    portions
}

impl Portion {
    /// Read when its first message is wanted.
    fn read(
        self,
        store: Store,
    ) -> Pin<Box<dyn Stream<Item = Result<ClaimBodiesResponse, Error>> + Send>> {
        match self {
            Self::Unread(claims) => {
                stream::iter(claims).map(|claim| Ok(message(claim, Vec::new()))).boxed()
            }
            Self::Whole(claims) => stream::once(whole(store, claims))
                .map_ok(|messages| stream::iter(messages).map(Ok))
                .try_flatten()
                .boxed(),
            Self::Large(claim) => large(store, claim).boxed(),
        }
    }
}

async fn whole(store: Store, claims: Vec<Claim>) -> Result<Vec<ClaimBodiesResponse>, Error> {
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = claims.iter().map(|claim| claim.entity_id).collect();
    let mut bodies: HashMap<_, _> = match store.legacy_bodies(&ids).await {
        Err(error) if !error.passes() => readable(&store, &claims, &error).await?,
        bodies => bodies?,
    };
    let with_body = |claim: Claim| {
        let body = bodies.remove(&claim.entity_id).unwrap_or_default();
        message(claim, body)
    };
    Ok(claims.into_iter().map(with_body).collect())
}

/// Of bodies that cannot be read together those that can be read alone: the pages of one may be damaged.
async fn readable(
    store: &Store,
    claims: &[Claim],
    error: &Error,
) -> Result<HashMap<Uuid, Vec<u8>>, Error> {
    tracing::warn!(error = error as &dyn std::error::Error, "some bodies cannot be read");
    let mut bodies = HashMap::new();
    for Claim { entity_id, key, .. } in claims {
        match store.legacy_bodies(&[*entity_id]).await {
            Err(error) if !error.passes() => {
                let failure = Some(("unreadable".to_owned(), error.to_string()));
                let key = key.as_str().to_owned();
                store.release_claims(&[Released { entity_id: *entity_id, key, failure }]).await?;
            }
            body => bodies.extend(body?),
        }
    }
    Ok(bodies)
}

fn large(
    store: Store,
    claim: Claim,
) -> impl Stream<Item = Result<ClaimBodiesResponse, Error>> + Send {
    let (id, size) = (claim.entity_id, claim.size);
    stream::try_unfold((Some(claim), 0), move |(mut claim, at)| {
        let store = store.clone();
        async move {
            if at >= size {
                return Ok(None);
            }
            let piece = store.legacy_piece(id, at, READ_BYTES.min(size - at)).await?;
            let next = if piece.is_empty() { size } else { at + READ_BYTES };
            let message = ClaimBodiesResponse {
                looked: None,
                claim: claim.take().map(ClaimedBody::from),
                data: piece.into(),
            };
            Ok(Some((message, (None, next))))
        }
    })
}

fn message(claim: Claim, body: Vec<u8>) -> ClaimBodiesResponse {
    ClaimBodiesResponse { looked: None, claim: Some(claim.into()), data: body.into() }
}

impl TryFrom<ClaimBodiesRequest> for Wanted {
    type Error = Violation;

    fn try_from(request: ClaimBodiesRequest) -> Checked<Self> {
        let limit = field::within("limit", request.limit, 1, 1_000)?;
        let only = entity_ids(&request.entity_ids)?;
        let after = field::optional_uuid("after_id", &request.after_id)?.unwrap_or_default();
        let since = request.since.map(|time| field::time("since", Some(time))).transpose()?;
        Ok(Self {
            claimant: field::uuid("claimant_id", &request.claimant_id)?,
            limit: usize::try_from(limit).unwrap_or_default(),
            among: if only.is_empty() { Among::After(after) } else { Among::These(only) },
            user: Some(request.user_id).filter(|user| !user.is_empty()),
            since,
            retry_failed: request.retry_failed,
            dry_run: request.dry_run,
        })
    }
}

fn entity_ids(texts: &[String]) -> Checked<Vec<Uuid>> {
    field::length("entity_ids", texts, 0, MAX_BODIES)?;
    let id = |(i, text): (usize, &String)| field::uuid(&format!("entity_ids[{i}]"), text);
    texts.iter().enumerate().map(id).collect()
}

fn uploaded(bodies: Vec<UploadedBody>) -> Checked<Vec<Uploaded>> {
    field::length("bodies", &bodies, 0, MAX_BODIES)?;
    let one = |(i, body)| {
        Uploaded::try_from(body).map_err(|why: Violation| why.within(format!("bodies[{i}]")))
    };
    bodies.into_iter().enumerate().map(one).collect()
}

impl TryFrom<UploadedBody> for Uploaded {
    type Error = Violation;

    fn try_from(body: UploadedBody) -> Checked<Self> {
        let check = match body.check() {
            BlobCheck::Unspecified => {
                return Err(Violation::new("check", "must be a way to look at an object"));
            }
            BlobCheck::None => Check::None,
            BlobCheck::Head => Check::Head,
            BlobCheck::Checksum => Check::Checksum,
        };
        Ok(Self {
            entity_id: field::uuid("entity_id", &body.entity_id)?,
            key: field::key("key", body.key)?,
            checksum: field::sha256("sha256", &body.sha256)?,
            url: Some(body.url).filter(|url| !url.is_empty()),
            existing: body.existing,
            check,
        })
    }
}

fn released(claims: Vec<ReleasedClaim>) -> Checked<Vec<Released>> {
    field::length("claims", &claims, 0, MAX_BODIES)?;
    let one = |(i, claim): (usize, ReleasedClaim)| {
        let at = |name: &str| format!("claims[{i}].{name}");
        let is_word = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if claim.failure.len() > 64 || !is_word(&claim.failure) {
            let what = "must be up to 64 lower-case letters or underscores";
            return Err(Violation::new(at("failure"), what));
        }
        Ok(Released {
            entity_id: field::uuid(&at("entity_id"), &claim.entity_id)?,
            key: claim.key,
            failure: (!claim.failure.is_empty()).then_some((claim.failure, claim.detail)),
        })
    };
    claims.into_iter().enumerate().map(one).collect()
}

impl From<Looked> for LookedAt {
    fn from(looked: Looked) -> Self {
        Self {
            last_id: looked.last.map(|id| id.to_string()).unwrap_or_default(),
            done: looked.done,
            entities: looked.entities,
            outcomes: looked.outcomes.into_iter().collect(),
            notables: looked.notables.into_iter().map(Into::into).collect(),
            held_ids: looked.held.iter().map(ToString::to_string).collect(),
            claimed_ids: Vec::new(),
        }
    }
}

impl From<Notable> for Named {
    fn from(notable: Notable) -> Self {
        Self {
            entity_id: notable.entity_id.to_string(),
            user_id: notable.user_id,
            outcome: notable.outcome,
            detail: notable.detail,
        }
    }
}

impl From<Claim> for ClaimedBody {
    fn from(claim: Claim) -> Self {
        Self {
            entity_id: claim.entity_id.to_string(),
            user_id: claim.user_id,
            key: claim.key.as_str().to_owned(),
            size: claim.size,
            resumed: claim.resumed,
            existing_key: claim.existing.map(|key| key.as_str().to_owned()).unwrap_or_default(),
            content_type: claim.content_type.unwrap_or_default(),
        }
    }
}

impl From<Attachment> for Answer {
    fn from(attachment: Attachment) -> Self {
        match attachment {
            Attachment::Attached => Self::Attached,
            Attachment::Conflict => Self::Conflict,
            Attachment::Gone => Self::Gone,
        }
    }
}
