//! Lists and searches.

use synap_proto::{entity as pb, field};
use synap_rpc::{RpcError, retry};
use synap_types::UserId;

use super::{super::promised, EntityClient, SERVICE, convert::entity};
use crate::{
    domain::{Entity, Hit, Meaning, NoteFilter, Position, Rank},
    error::Error,
};

/// What is searched.
const NOTE: &str = "note";

impl EntityClient {
    /// Lists entities of the user, the newest first, from after a position on.
    pub(crate) async fn list(
        &self,
        user: &UserId,
        entity_type: &str,
        filter: &NoteFilter,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Entity>, Error> {
        let time = |time: Option<_>| time.map(field::timestamp);
        let request = pb::ListEntitiesRequest {
            user_id: user.to_string(),
            entity_type: entity_type.to_owned(),
            limit: i32::try_from(limit).unwrap_or(i32::MAX),
            after: after.map(|after| pb::EntityPosition {
                create_time: Some(field::timestamp(after.created_at)),
                id: after.id.to_string(),
            }),
            include_deleted: filter.show_deleted,
            tags: filter.tags.clone(),
            created_from: time(filter.created.from),
            created_until: time(filter.created.until),
            updated_from: time(filter.updated.from),
            updated_until: time(filter.updated.until),
        };
        let answer = retry(|| {
            let (request, mut stub) = (request.clone(), self.entities.clone());
            async move { stub.list_entities(request).await.map_err(RpcError::from) }
        })
        .await?;
        answer.into_inner().entities.into_iter().map(entity).collect()
    }

    /// Searches notes of the user by words, the best first, from after a rank on.
    pub(crate) async fn search(
        &self,
        user: &UserId,
        query: &str,
        after: Option<Rank>,
        limit: usize,
    ) -> Result<Vec<Hit>, Error> {
        let request = pb::SearchEntitiesRequest {
            user_id: user.to_string(),
            entity_type: NOTE.to_owned(),
            query: query.to_owned(),
            limit: i32::try_from(limit).unwrap_or(i32::MAX),
            after: after
                .map(|rank| pb::SearchPosition { score: rank.score, id: rank.id.to_string() }),
        };
        let answer = retry(|| {
            let (request, mut stub) = (request.clone(), self.entities.clone());
            async move { stub.search_entities(request).await.map_err(RpcError::from) }
        })
        .await?;
        answer.into_inner().hits.into_iter().map(hit).collect()
    }

    /// Searches notes of the user by meaning, the nearest first.
    pub(crate) async fn search_vectors(
        &self,
        user: &UserId,
        meaning: &Meaning,
        limit: usize,
    ) -> Result<Vec<Hit>, Error> {
        let request = pb::SearchVectorsRequest {
            user_id: user.to_string(),
            entity_type: NOTE.to_owned(),
            embedding_model: meaning.model.clone(),
            embedding: meaning.vector.clone(),
            limit: i32::try_from(limit).unwrap_or(i32::MAX),
        };
        let answer = retry(|| {
            let (request, mut stub) = (request.clone(), self.entities.clone());
            async move { stub.search_vectors(request).await.map_err(RpcError::from) }
        })
        .await?;
        answer.into_inner().hits.into_iter().map(hit).collect()
    }

    /// A snippet of each text.
    pub(crate) async fn snippets(
        &self,
        user: &UserId,
        query: &str,
        texts: Vec<String>,
    ) -> Result<Vec<String>, Error> {
        let request =
            pb::MakeSnippetsRequest { user_id: user.to_string(), query: query.to_owned(), texts };
        let answer = retry(|| {
            let (request, mut stub) = (request.clone(), self.entities.clone());
            async move { stub.make_snippets(request).await.map_err(RpcError::from) }
        })
        .await?;
        Ok(answer.into_inner().snippets)
    }
}

fn hit(hit: pb::EntityHit) -> Result<Hit, Error> {
    Ok(Hit { entity: entity(promised(SERVICE, "entity", hit.entity)?)?, score: hit.score })
}
