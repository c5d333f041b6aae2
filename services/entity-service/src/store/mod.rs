//! PostgreSQL. One file per use case, with its SQL beside the method that runs it; affected rows
//! are counted, and every statement that reads or writes a user's row names the user.

mod adoption;
mod ahead;
mod audit;
mod begin;
mod commit;
mod content_migration;
mod database;
mod documents;
mod edit;
mod entities;
mod list;
mod phase;
mod purge;
mod recovery;
mod repair;
mod revisions;
mod rows;
mod search;
mod settle;
mod status;
mod takeover;
mod vectors;
mod verification;

use std::sync::Arc;

use sqlx::PgPool;
use synap_postgres::{GroupCommit, GroupCommitOptions, Rejected};
use synap_types::IdGenerator;

pub use adoption::{Adoption, Tell};
use ahead::Documents;
use begin::Beginner;
use commit::Committer;
use database::{Database, Job, in_time};
use vectors::ManyVectors;

use crate::{
    config::{ProtocolArgs, SearchArgs},
    domain::{Begun, Change, Entity, Found, Intent, OperationId},
    error::Error,
};

type Grouped<Work, Out> = Arc<GroupCommit<OperationId, Job<Work>, Out, Error>>;

/// The database, and the queues in front of its two busiest statements.
#[derive(Clone)]
pub struct Store {
    database: Database,
    times: ProtocolArgs,
    search: SearchArgs,
    many_vectors: ManyVectors,
    beginner: Beginner,
    committer: Committer,
    documents: Documents,
    begins: Grouped<Intent, Begun>,
    commits: Grouped<Change, Entity>,
}

impl Store {
    /// A store over a pool made with [`Config::pool_options`](crate::Config::pool_options). Begins
    /// and commits of concurrent callers share transactions.
    pub fn new(
        pool: PgPool,
        times: ProtocolArgs,
        search: SearchArgs,
        ids: Arc<dyn IdGenerator>,
    ) -> Self {
        let options = GroupCommitOptions {
            workers: times.group_commit_workers.get(),
            ..GroupCommitOptions::default()
        };
        // Begins and commits.
        let database = Database::new(pool, 2 * options.workers);
        let beginner = Beginner { database: database.clone(), times, ids };
        let begins = {
            let beginner = beginner.clone();
            GroupCommit::new(
                options,
                |job: &Job<Intent>| job.work().operation.clone(),
                move |batch| {
                    let beginner = beginner.clone();
                    async move { beginner.begin_all(batch).await }
                },
            )
        };
        let committer = Committer {
            database: database.clone(),
            times,
            language: search.language.as_str().into(),
        };
        let documents = Documents::new(database.clone(), Arc::clone(&committer.language));
        let commits = {
            let committer = committer.clone();
            GroupCommit::new(
                options,
                |job: &Job<Change>| job.work().attempt.operation.clone(),
                move |batch| {
                    let committer = committer.clone();
                    async move { committer.commit_all(batch).await }
                },
            )
        };
        let (begins, commits) = (Arc::new(begins), Arc::new(commits));
        let many_vectors = ManyVectors::default();
        Self {
            database,
            times,
            search,
            many_vectors,
            beginner,
            committer,
            documents,
            begins,
            commits,
        }
    }

    /// Step 1 of the write protocol: records the intent, or says what became of it.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`] if the id stands for something else.
    #[tracing::instrument(name = "db.operation.begin", skip_all, err(level = "debug"))]
    pub async fn begin(&self, mut intent: Intent) -> Result<Begun, Error> {
        let words = intent.words.take();
        let begun = in_time(intent, async |job| self.begins.submit(job).await).await?;
        if let (Begun::Started(started), Some(words)) = (&begun, words) {
            self.documents.make(&started.attempt.operation, words);
        }
        Ok(begun)
    }

    /// What became of an operation, for those who did not begin it.
    ///
    /// # Errors
    /// [`Error::OperationNotFound`] if it was given up, or nobody knows it.
    #[tracing::instrument(name = "db.operation.get", skip_all, err(level = "debug"))]
    pub async fn operation(&self, operation: &OperationId) -> Result<Found, Error> {
        self.beginner.look_at(operation).await?.ok_or(Error::OperationNotFound)
    }

    /// Step 3, the pivot of a create: makes the write true in one transaction. Repeating a commit that went
    /// through succeeds.
    ///
    /// # Errors
    /// [`Error::Fenced`] or [`Error::PhaseChanged`], or [`Error::Invalid`] if the file is not under
    /// the attempt's key; and then nothing was written.
    #[tracing::instrument(name = "db.operation.commit", skip_all, err(level = "debug"))]
    pub async fn commit(&self, mut change: Change) -> Result<Entity, Error> {
        change.document = self.documents.take(&change).await;
        if change.is_small() {
            in_time(change, async |job| self.commits.submit(job).await).await
        } else {
            self.committer.commit_alone(change).await
        }
    }
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::QueueFull => Self::QueueFull,
            Rejected::NoAnswer => sqlx::Error::WorkerCrashed.into(),
        }
    }
}
