//! The calls of the content migration, and rows of V0.2 to make them on.

use sqlx::PgPool;
use synap_proto::entity::{
    self as pb, Attachment, BlobCheck,
    content_migration_service_client::ContentMigrationServiceClient,
};
use synap_rpc::Channel;
use synap_types::Checksum;

use crate::support::{Answer, Api, execute, id};

/// What a call hands out, with the bodies.
pub struct Handed {
    pub looked: pb::LookedAt,
    pub bodies: Vec<(pb::ClaimedBody, Vec<u8>)>,
}

impl Handed {
    pub fn outcomes(&self) -> Vec<(&str, i64)> {
        let mut outcomes: Vec<_> =
            self.looked.outcomes.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        outcomes.sort_unstable();
        outcomes
    }

    pub fn texts(&self) -> Vec<&str> {
        let mut texts: Vec<_> =
            self.bodies.iter().map(|(_, body)| std::str::from_utf8(body).unwrap()).collect();
        texts.sort_unstable();
        texts
    }

    pub fn one(self) -> (pb::ClaimedBody, Vec<u8>) {
        let [one] = <[_; 1]>::try_from(self.bodies).unwrap_or_else(|all| panic!("{all:?}"));
        one
    }
}

pub fn request() -> pb::ClaimBodiesRequest {
    pb::ClaimBodiesRequest { claimant_id: id(), limit: 100, ..pb::ClaimBodiesRequest::default() }
}

pub fn uploaded(claim: &pb::ClaimedBody, body: &[u8]) -> pb::UploadedBody {
    pb::UploadedBody {
        entity_id: claim.entity_id.clone(),
        key: claim.key.clone(),
        sha256: Checksum::of(body).as_bytes().to_vec().into(),
        url: format!("https://blobs.example.org/{}", claim.key),
        existing: false,
        check: BlobCheck::Checksum.into(),
    }
}

impl Api {
    pub fn migration(&self) -> ContentMigrationServiceClient<Channel> {
        ContentMigrationServiceClient::new(self.0.clone())
    }

    pub async fn claim_bodies(&self, request: pb::ClaimBodiesRequest) -> Answer<Handed> {
        let mut messages = self.migration().claim_bodies(request).await?.into_inner();
        let looked = messages.message().await?.unwrap().looked.unwrap();
        let mut bodies: Vec<(_, Vec<u8>)> = Vec::new();
        while let Some(message) = messages.message().await? {
            bodies.extend(message.claim.map(|claim| (claim, Vec::new())));
            bodies.last_mut().unwrap().1.extend_from_slice(&message.data);
        }
        Ok(Handed { looked, bodies })
    }

    pub async fn attach(&self, bodies: Vec<pb::UploadedBody>) -> Answer<Vec<Attachment>> {
        let request = pb::AttachBlobsRequest { bodies };
        let answer = self.migration().attach_blobs(request).await?.into_inner();
        Ok(answer.attachments().collect())
    }

    pub async fn release(&self, claim: &pb::ClaimedBody, failure: &str) {
        let claim = pb::ReleasedClaim {
            entity_id: claim.entity_id.clone(),
            key: claim.key.clone(),
            failure: failure.to_owned(),
            detail: "what was said".to_owned(),
        };
        let request = pb::ReleaseClaimsRequest { claims: vec![claim] };
        self.migration().release_claims(request).await.unwrap();
    }
}

/// An entity of V0.2 with a text.
pub async fn old(pool: &PgPool, user: &str, entity_type: &str, text: &str) -> String {
    let id = id();
    sqlx::query(
        "WITH entity AS (INSERT INTO entities (id, user_id, type) VALUES ($1::uuid, $2, $3))
         INSERT INTO content_blocks (entity_id, content) VALUES ($1::uuid, $4)",
    )
    .bind(&id)
    .bind(user)
    .bind(entity_type)
    .bind(text)
    .execute(pool)
    .await
    .unwrap();
    id
}

pub async fn expire(pool: &PgPool) {
    execute(pool, "UPDATE content_migrations SET lease_until = clock_timestamp() - interval '1 s'")
        .await;
}

pub async fn claims(pool: &PgPool) -> Vec<(String, Option<String>)> {
    sqlx::query_as("SELECT state, failure FROM content_migrations ORDER BY entity_id")
        .fetch_all(pool)
        .await
        .unwrap()
}

pub async fn file_path(pool: &PgPool, id: &str) -> Option<String> {
    sqlx::query_scalar("SELECT file_path FROM entities WHERE id = $1::uuid")
        .bind(id)
        .fetch_one(pool)
        .await
        .unwrap()
}
