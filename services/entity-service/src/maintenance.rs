//! What entity-service does unasked, in small steps: old operations are forgotten, and search
//! documents are written for what is older than they are. Every replica does it; none has to.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::store::Store;

/// How often old operations are forgotten, and how many at once.
const FORGET_INTERVAL: Duration = Duration::from_mins(10);
const FORGET_BATCH: i64 = 1000;

/// How often all entities are looked at for a missing document, and how many at once. The first
/// walk does it; a later one finds what a replica of an older release has written meanwhile.
const WALK_INTERVAL: Duration = Duration::from_hours(6);
const WALK_BATCH: i64 = 100;
/// How soon what could not be written is tried again: nobody enters object_only without it.
/// What fails again and again is tried ever more rarely.
const AGAIN_INTERVAL: Duration = Duration::from_secs(2);
const AGAIN_AT_MOST: Duration = Duration::from_mins(5);

/// How often a database is asked whether it is there and migrated.
const READY_INTERVAL: Duration = Duration::from_secs(1);

/// For ever.
pub(crate) async fn run<Ready>(store: &Store, ready: impl Fn() -> Ready)
where
    Ready: Future<Output = bool>,
{
    let filling = async {
        while !ready().await {
            tokio::time::sleep(READY_INTERVAL).await;
        }
        fill_documents_forever(store).await;
    };
    tokio::join!(forget_operations_forever(store), filling);
}

async fn forget_operations_forever(store: &Store) {
    loop {
        tokio::time::sleep(FORGET_INTERVAL).await;
        loop {
            match store.forget_operations(FORGET_BATCH).await {
                Ok(forgotten) if forgotten == FORGET_BATCH.unsigned_abs() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn Error, "old operations stay");
                    break;
                }
            }
        }
    }
}

async fn fill_documents_forever(store: &Store) {
    let written = synap_telemetry::metrics::meter()
        .u64_counter("synap.search.fills")
        .with_unit("{document}")
        .with_description("Search documents written for entities that had none")
        .build();
    loop {
        let (mut last, mut count, mut left) = (Some(Uuid::nil()), 0, 0);
        let mut again = AGAIN_INTERVAL;
        while let Some(after) = last {
            let began = Instant::now();
            let pause = match store.fill_documents(after, WALK_BATCH).await {
                Ok(walked) => {
                    (last, count, left) = (walked.last, count + walked.filled, left + walked.left);
                    written.add(walked.filled, &[]);
                    again = AGAIN_INTERVAL;
                    // Others have the database for half of the time at least.
                    began.elapsed()
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn Error, "search documents stay missing");
                    let pause = again;
                    again = AGAIN_AT_MOST.min(again * 2);
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
        if count > 0 {
            tracing::info!(count, "search documents written for what had none");
        }
        tokio::time::sleep(if left > 0 { AGAIN_INTERVAL } else { WALK_INTERVAL }).await;
    }
}
