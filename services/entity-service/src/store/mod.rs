//! PostgreSQL. One file per use case, with its SQL beside the method that runs it; affected rows
//! are counted, and every statement that reads or writes a user's row names the user.

mod begin;
mod commit;
mod entities;
mod recovery;
mod rows;
mod settle;
mod status;

use std::sync::Arc;

use sqlx::PgPool;
use synap_postgres::{GroupCommit, GroupCommitOptions, Rejected};
use synap_types::IdGenerator;

use crate::{
    config::ProtocolArgs,
    domain::{Begun, Change, Entity, Intent, OperationId},
    error::Error,
};

/// The database, and the queues in front of its two busiest statements.
#[derive(Clone)]
pub struct Store {
    pool: PgPool,
    times: ProtocolArgs,
    begins: Arc<GroupCommit<OperationId, Intent, Begun, Error>>,
    commits: Arc<GroupCommit<OperationId, Change, Entity, Error>>,
}

impl Store {
    /// A store over a pool. Begins and commits of concurrent callers share transactions.
    pub fn new(pool: PgPool, times: ProtocolArgs, ids: Arc<dyn IdGenerator>) -> Self {
        let options = GroupCommitOptions {
            workers: times.group_commit_workers,
            ..GroupCommitOptions::default()
        };
        let begins = {
            let beginner = begin::Beginner {
                pool: pool.clone(),
                times,
                ids,
            };
            GroupCommit::new(
                options,
                |intent: &Intent| intent.operation.clone(),
                move |batch| {
                    let beginner = beginner.clone();
                    async move { beginner.begin_all(batch).await }
                },
            )
        };
        let commits = {
            let committer = commit::Committer {
                pool: pool.clone(),
                times,
            };
            GroupCommit::new(
                options,
                |change: &Change| change.attempt.operation.clone(),
                move |batch| {
                    let committer = committer.clone();
                    async move { committer.commit_all(batch).await }
                },
            )
        };
        Self {
            pool,
            times,
            begins: Arc::new(begins),
            commits: Arc::new(commits),
        }
    }

    /// Step 1 of the write protocol: records the intent, or says what became of it.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`] if the id stands for something else.
    #[tracing::instrument(name = "db.operation.begin", skip_all, err(level = "debug"))]
    pub async fn begin(&self, intent: Intent) -> Result<Begun, Error> {
        self.begins.submit(intent).await
    }

    /// Step 3, the pivot: makes the write true in one transaction. Repeating a commit that went
    /// through succeeds.
    ///
    /// # Errors
    /// [`Error::Fenced`] or [`Error::PhaseChanged`], and then nothing was written.
    #[tracing::instrument(name = "db.operation.commit", skip_all, err(level = "debug"))]
    pub async fn commit(&self, change: Change) -> Result<Entity, Error> {
        self.commits.submit(change).await
    }
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::QueueFull => Self::QueueFull,
            Rejected::NoAnswer => Self::Database(sqlx::Error::WorkerCrashed),
        }
    }
}
