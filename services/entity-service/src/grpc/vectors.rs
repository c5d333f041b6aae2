//! What vectors must be, checked.

use std::collections::HashSet;

use synap_proto::{
    entity as pb,
    field::{self, Checked, Violation},
};

use super::convert::text;
use crate::domain::{Chunk, DIMENSIONS, VectorSearch, Vectors};

const MAX_MODEL_BYTES: usize = 100;
const MAX_CHUNKS: usize = 256;
const MAX_CHUNK: i32 = 1_000_000;
const MAX_HITS: i32 = 200;

impl TryFrom<pb::UpsertVectorsRequest> for Vectors {
    type Error = Violation;

    fn try_from(message: pb::UpsertVectorsRequest) -> Checked<Self> {
        field::length("vectors", &message.vectors, 1, MAX_CHUNKS)?;
        let mut numbers = HashSet::new();
        let mut chunks = Vec::with_capacity(message.vectors.len());
        for (index, vector) in message.vectors.into_iter().enumerate() {
            let within = |violation: Violation| violation.within(format!("vectors[{index}]"));
            let chunk = Chunk::try_from(vector).map_err(within)?;
            if !numbers.insert(chunk.number) {
                return Err(within(Violation::new("chunk", "is there twice")));
            }
            chunks.push(chunk);
        }
        Ok(Self {
            user: field::user_id("user_id", message.user_id)?,
            entity_id: field::uuid("entity_id", &message.entity_id)?,
            model: model(message.embedding_model)?,
            chunks,
        })
    }
}

impl TryFrom<pb::EntityVector> for Chunk {
    type Error = Violation;

    fn try_from(message: pb::EntityVector) -> Checked<Self> {
        Ok(Self {
            number: field::within("chunk", message.chunk, 0, MAX_CHUNK)?,
            embedding: embedding(message.embedding)?,
        })
    }
}

impl TryFrom<pb::SearchVectorsRequest> for VectorSearch {
    type Error = Violation;

    fn try_from(message: pb::SearchVectorsRequest) -> Checked<Self> {
        Ok(Self {
            user: field::user_id("user_id", message.user_id)?,
            entity_type: field::entity_type("entity_type", message.entity_type)?,
            model: model(message.embedding_model)?,
            embedding: embedding(message.embedding)?,
            limit: field::within("limit", message.limit, 1, MAX_HITS)?.into(),
        })
    }
}

pub(super) fn model(name: String) -> Checked<String> {
    text("embedding_model", &name, MAX_MODEL_BYTES)?;
    if name.is_empty() {
        return Err(Violation::new("embedding_model", "is required"));
    }
    Ok(name)
}

/// A vector that has a direction.
fn embedding(numbers: Vec<f32>) -> Checked<Vec<f32>> {
    if numbers.len() != DIMENSIONS {
        let what = format!("must have {DIMENSIONS} numbers; it has {}", numbers.len());
        return Err(Violation::new("embedding", what));
    }
    // What pgvector makes of its length, in 32 bits, must be a number above zero, too.
    let length: f64 = numbers.iter().map(|number| f64::from(*number).powi(2)).sum();
    if !(f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&length) {
        let what = "must be finite numbers, not all zero, of a length below 1.8e19";
        return Err(Violation::new("embedding", what));
    }
    Ok(numbers)
}
