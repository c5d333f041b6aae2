//! Quarantine: which blobs are moved where.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use synap_proto::{
    content::{BlobMove, BlobMoveOutcome, QuarantineBlobsRequest},
    field::{self, Checked, Violation},
};
use synap_types::{BlobKey, Clock as _, SystemClock};

use super::{Content, checked_keys};
use crate::{
    error::ContentError,
    moves::{Fate, relocate},
};

/// Blobs that are moved at a time.
const MOVES: usize = 4;

/// A blob's key, and the one that it has in quarantine.
pub(super) struct Way {
    key: BlobKey,
    there: BlobKey,
}

/// Which way a blob goes.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    /// If the store took it before this.
    Aside(DateTime<Utc>),
    Back,
}

impl Content {
    pub(super) async fn move_blobs(
        &self,
        ways: Vec<Way>,
        direction: Direction,
    ) -> Result<Vec<BlobMove>, ContentError> {
        let moves = ways.into_iter().map(|Way { key, there }| {
            let (store, uploads) = (self.store.clone(), self.uploads.clone());
            async move {
                let (way, before) = match direction {
                    Direction::Aside(before) => ((&key, &there), Some(before)),
                    Direction::Back => ((&there, &key), None),
                };
                let outcome = outcome(relocate(&store, &uploads, way, before).await?).into();
                Ok(BlobMove { key: key.to_string(), outcome })
            }
        });
        let moves: Vec<_> = stream::iter(moves).buffered(MOVES).try_collect().await?;
        if moves.iter().any(|one: &BlobMove| one.outcome() == BlobMoveOutcome::Missing) {
            // As after BatchHeadBlobs: all is missing where the store is.
            self.store.probe().await.map_err(ContentError::Store)?;
        }
        Ok(moves)
    }
}

/// The keys of users whose blobs are to be moved.
pub(super) fn checked_ways(keys: Vec<String>) -> Checked<Vec<Way>> {
    let way = |(at, key): (usize, BlobKey)| {
        let there = key.in_quarantine().ok_or_else(|| {
            let what = "must be below users/, and leave room for quarantine/ before it";
            Violation::new(format!("keys[{at}]"), what)
        })?;
        Ok(Way { key, there })
    };
    checked_keys(keys)?.into_iter().enumerate().map(way).collect()
}

pub(super) fn checked_aside(request: QuarantineBlobsRequest) -> Checked<(Vec<Way>, Direction)> {
    let age = field::required("min_age", request.min_age)?;
    let age =
        Duration::try_from(age).map_err(|_| Violation::new("min_age", "must not be negative"))?;
    let before = chrono::TimeDelta::from_std(age).ok();
    let before = before.and_then(|age| SystemClock.now().checked_sub_signed(age));
    let before = before.ok_or_else(|| Violation::new("min_age", "is before all time"))?;
    Ok((checked_ways(request.keys)?, Direction::Aside(before)))
}

fn outcome(fate: Fate) -> BlobMoveOutcome {
    match fate {
        Fate::Moved => BlobMoveOutcome::Moved,
        Fate::Missing => BlobMoveOutcome::Missing,
        Fate::TooYoung => BlobMoveOutcome::TooYoung,
        Fate::Taken => BlobMoveOutcome::Taken,
    }
}
