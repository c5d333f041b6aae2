//! Searches of notes, and what one is asked for.

use std::collections::HashMap;

use synap_proto::{
    field::{self, Checked, Violation},
    gateway::SearchNotesRequest,
};
use synap_types::Checksum;
use uuid::Uuid;

use super::{Entity, Fingerprint, check_text};

/// Results of a page, where nothing is said and at most.
const DEFAULT_PAGE: i32 = 20;
const MAX_PAGE: i32 = 100;
/// Characters of a query at most.
const MAX_QUERY_CHARS: usize = 500;
/// Characters of a model's name at most.
const MAX_MODEL_CHARS: usize = 100;
/// What every vector of ours has.
const DIMENSIONS: usize = 1536;
const DEFAULT_MODEL: &str = "text-embedding-3-small";

/// A search that has passed all checks.
#[derive(Debug, Clone)]
pub(crate) struct NoteSearch {
    /// As it was typed.
    pub(crate) query: String,
    /// What it means, where that is asked for.
    pub(crate) meaning: Option<Meaning>,
    /// Results of a page.
    pub(crate) size: usize,
}

/// What is searched for, as a vector.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Meaning {
    pub(crate) model: String,
    pub(crate) vector: Vec<f32>,
}

/// A note that was found.
#[derive(Debug, Clone)]
pub(crate) struct Hit {
    pub(crate) entity: Entity,
    pub(crate) score: f32,
}

/// Where a hit stands among the hits of a search by words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rank {
    pub(crate) score: f32,
    pub(crate) id: Uuid,
}

impl NoteSearch {
    /// Checks a request.
    pub(crate) fn check(request: SearchNotesRequest) -> Checked<Self> {
        let SearchNotesRequest {
            query, limit, mode, page_size, query_vector, embedding_model, ..
        } = request;
        check_text("query", &query, MAX_QUERY_CHARS)?;
        check_text("embedding_model", &embedding_model, MAX_MODEL_CHARS)?;
        let meaning = match mode.as_str() {
            "keyword" => None,
            "" if query_vector.is_empty() => None,
            "" | "hybrid" => Some(Meaning::check(query_vector, embedding_model)?),
            _ => return Err(Violation::new("mode", "must be keyword or hybrid")),
        };
        if query.trim().is_empty() && meaning.is_none() {
            return Err(Violation::new("query", "is empty; say what to search for"));
        }
        let asked = [("page_size", page_size), ("limit", limit)];
        if let Some((name, _)) = asked.iter().find(|(_, size)| *size < 0) {
            return Err(Violation::new(*name, "must not be negative"));
        }
        let size = asked.map(|(_, size)| size).into_iter().find(|size| *size > 0);
        let size = size.unwrap_or(DEFAULT_PAGE).min(MAX_PAGE);
        Ok(Self { query, meaning, size: size.unsigned_abs() as usize })
    }

    /// How it is searched.
    pub(crate) fn mode(&self) -> &'static str {
        if self.meaning.is_some() { "hybrid" } else { "keyword" }
    }

    /// What the pages of one search have in common; how large they are is not part of it.
    pub(crate) fn fingerprint(&self) -> Checksum {
        let mut print = Fingerprint::default();
        print.part(b"notes.search");
        print.part(self.query.as_bytes());
        if let Some(Meaning { model, vector }) = &self.meaning {
            print.part(model.as_bytes());
            for number in vector {
                print.part(&number.to_be_bytes());
            }
        }
        print.0.finish()
    }
}

impl Meaning {
    fn check(vector: Vec<f32>, model: String) -> Checked<Self> {
        field::length("query_vector", &vector, DIMENSIONS, DIMENSIONS).map_err(|_| {
            let what = format!("must have {DIMENSIONS} numbers; keyword search needs none");
            Violation::new("query_vector", what)
        })?;
        if !vector.iter().all(|number| number.is_finite()) || vector.iter().all(|n| *n == 0.0) {
            return Err(Violation::new("query_vector", "must be finite numbers, not all zero"));
        }
        let model = if model.is_empty() { DEFAULT_MODEL.to_owned() } else { model };
        Ok(Self { model, vector })
    }
}

impl Rank {
    pub(crate) const BYTES: usize = 20;

    pub(crate) fn of(hit: &Hit) -> Self {
        Self { score: hit.score, id: hit.entity.id }
    }

    /// For a page token.
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.score.to_be_bytes());
        bytes[4..].copy_from_slice(self.id.as_bytes());
        bytes
    }

    /// From a page token that has been verified.
    pub(crate) fn from_bytes(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let (score, id) = bytes.split_at(4);
        Some(Self {
            score: f32::from_be_bytes(score.try_into().ok()?),
            id: Uuid::from_slice(id).ok()?,
        })
    }
}

/// Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): what several lists rank high
/// comes first, however they count. `K` is theirs.
pub(crate) fn fuse(lists: [Vec<Hit>; 2]) -> Vec<Hit> {
    const K: f32 = 60.0;
    let mut fused: HashMap<Uuid, Hit> = HashMap::new();
    for list in lists {
        let ranks = std::iter::successors(Some(1.0_f32), |rank| Some(rank + 1.0));
        for (hit, rank) in list.into_iter().zip(ranks) {
            let entry = fused.entry(hit.entity.id).or_insert(Hit { score: 0.0, ..hit });
            entry.score += 1.0 / (K + rank);
        }
    }
    let mut fused: Vec<Hit> = fused.into_values().collect();
    // The order of equals must not change from page to page.
    fused.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.entity.id.cmp(&a.entity.id)));
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(id: u128, score: f32) -> Hit {
        let time = chrono::DateTime::UNIX_EPOCH;
        let entity = Entity {
            id: Uuid::from_u128(id),
            user_id: "ada".into(),
            entity_type: "note".into(),
            title: String::new(),
            preview: String::new(),
            tags: Vec::new(),
            file: None,
            version: 1,
            created_at: time,
            updated_at: time,
            deleted_at: None,
        };
        Hit { entity, score }
    }

    #[test]
    fn what_both_lists_have_comes_before_what_one_has() {
        let words = vec![hit(1, 9.0), hit(2, 8.0), hit(3, 7.0)];
        let meaning = vec![hit(4, 0.9), hit(3, 0.8)];
        let fused = fuse([words, meaning]);
        let ids: Vec<_> = fused.iter().map(|hit| hit.entity.id.as_u128()).collect();
        assert_eq!(ids, [3, 4, 1, 2]);
        assert!((fused[0].score - (1.0 / 63.0 + 1.0 / 62.0)).abs() < 1e-6);
    }

    #[test]
    fn a_rank_survives_its_token() {
        let rank = Rank { score: 0.1, id: Uuid::from_u128(7) };
        assert_eq!(Rank::from_bytes(rank.to_bytes()), Some(rank));
    }

    #[test]
    fn what_cannot_be_searched_for_is_named() {
        let base = SearchNotesRequest { query: "sea".into(), ..Default::default() };
        let vector = vec![0.5; DIMENSIONS];
        for (request, field) in [
            (SearchNotesRequest { query: " ".into(), ..base.clone() }, "query"),
            (SearchNotesRequest { query: "x".repeat(501), ..base.clone() }, "query"),
            (SearchNotesRequest { query: "a\0b".into(), ..base.clone() }, "query"),
            (SearchNotesRequest { mode: "magic".into(), ..base.clone() }, "mode"),
            (SearchNotesRequest { mode: "hybrid".into(), ..base.clone() }, "query_vector"),
            (SearchNotesRequest { query_vector: vec![1.0; 3], ..base.clone() }, "query_vector"),
            (SearchNotesRequest { limit: -1, ..base.clone() }, "limit"),
            (SearchNotesRequest { page_size: -1, ..base.clone() }, "page_size"),
        ] {
            assert_eq!(NoteSearch::check(request).unwrap_err().field, field);
        }
        for bad in [f32::NAN, f32::INFINITY] {
            let mut query_vector = vector.clone();
            query_vector[7] = bad;
            let request = SearchNotesRequest { query_vector, ..base.clone() };
            assert_eq!(NoteSearch::check(request).unwrap_err().field, "query_vector");
        }
        let zero = SearchNotesRequest { query_vector: vec![0.0; DIMENSIONS], ..base.clone() };
        assert_eq!(NoteSearch::check(zero).unwrap_err().field, "query_vector");
    }

    #[test]
    fn a_vector_makes_it_hybrid_and_a_page_has_bounds() {
        let base = SearchNotesRequest { query: "sea".into(), ..Default::default() };
        let with = |limit, page_size, query_vector: &[f32]| {
            let query_vector = query_vector.to_vec();
            let request = SearchNotesRequest { limit, page_size, query_vector, ..base.clone() };
            NoteSearch::check(request).unwrap()
        };
        assert_eq!((with(0, 0, &[]).size, with(0, 0, &[]).mode()), (20, "keyword"));
        assert_eq!(
            (with(7, 0, &[]).size, with(7, 3, &[]).size, with(0, 999, &[]).size),
            (7, 3, 100)
        );
        let hybrid = with(0, 0, &[0.5; DIMENSIONS]);
        assert_eq!(
            (hybrid.mode(), hybrid.meaning.as_ref().unwrap().model.as_str()),
            ("hybrid", DEFAULT_MODEL)
        );
        assert_ne!(hybrid.fingerprint(), with(0, 0, &[]).fingerprint());
        assert_eq!(with(5, 0, &[]).fingerprint(), with(0, 0, &[]).fingerprint());
    }
}
