//! `synapctl migrate content`.
//!
//! - `claims`: asks entity-service for bodies, ahead of what is done with them.
//! - `room`: how many of them, and their leases.
//! - `body`: what happens to one of them: PUT, look, attach.
//! - `services`: the calls, grouped and repeated; `puts`: those that upload.
//! - `governor`: how many PUTs at once; `pace`: how fast at most.
//! - `tally`: what became of all of them.

mod body;
mod claims;
mod governor;
mod pace;
mod puts;
mod room;
mod services;
mod tally;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use clap::{Args, ValueEnum};
use synap_proto::entity::BlobCheck;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{body::Ended, tally::Tally};
pub(crate) use self::{
    body::Mover,
    claims::{Claims, Fed},
    governor::{Concurrency, Governor},
    pace::Pace,
    room::Room,
    services::Services,
};
use crate::{
    cli::Exit,
    output::{Lines, Progress, ReportArgs},
    services::{ContentUrl, EntityUrl},
};

/// Upload the bodies that V0.2 keeps in content_blocks to the object store, while users write: each
/// under a fresh key, read back and hashed before the entity names it, and only if its text still is
/// what was uploaded. Nothing is taken out of content_blocks. The storage phase must be dual_write. It
/// can be stopped at any moment, and the same command goes on. Exit code 1 if something has failed, or
/// lies in a store of V0.2's.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  synapctl migrate content --dry-run\n  \
                  synapctl migrate content --rate 200 --bandwidth 20971520 --report migrate.ndjson\n  \
                  synapctl migrate content --retry-failed --output json")]
pub(crate) struct ContentArgs {
    #[command(flatten)]
    pub(crate) content: ContentUrl,
    #[command(flatten)]
    pub(crate) entity: EntityUrl,
    #[command(flatten)]
    pub(crate) wanted: WantedArgs,
    /// How an object is looked at before its entity names it: read and hashed, only its size, or not.
    #[arg(long, value_enum, default_value_t = Verify::Readback)]
    pub(crate) verify: Verify,
    /// Uploads at once; auto: more, as long as that makes it faster and the store does not say no.
    #[arg(long, default_value = "auto")]
    pub(crate) concurrency: Concurrency,
    /// Objects a second at most.
    #[arg(long)]
    pub(crate) rate: Option<NonZeroU32>,
    /// Bytes a second at most.
    #[arg(long)]
    pub(crate) bandwidth: Option<NonZeroU32>,
    /// Seconds to rest after each batch, in which nothing is under way; V0.2's script took 5.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3600))]
    pub(crate) pause: Option<u64>,
    /// Stop when so many have failed.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_errors: Option<u64>,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// Which bodies.
#[derive(Debug, Clone, Args)]
pub(crate) struct WantedArgs {
    /// Only say what would become of the entities; nothing is changed anywhere.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Stop after so many bodies.
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) limit: Option<i64>,
    /// Bodies that are asked for at once.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub(crate) batch_size: i32,
    /// Only entities of this user.
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Only entities changed since: 2026-11-28, or 2026-11-28T09:30:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) since: Option<DateTime<Utc>>,
    /// Try again what has failed before.
    #[arg(long)]
    pub(crate) retry_failed: bool,
}

/// How an object is looked at after it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verify {
    /// It is read and hashed.
    Readback,
    /// Its size is asked for.
    Head,
    /// The answer to the upload is believed.
    None,
}

impl From<Verify> for BlobCheck {
    fn from(verify: Verify) -> Self {
        match verify {
            Verify::Readback => Self::Checksum,
            Verify::Head => Self::Head,
            Verify::None => Self::None,
        }
    }
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let day = || text.parse::<NaiveDate>().ok().map(|day| day.and_time(NaiveTime::MIN).and_utc());
    text.parse()
        .ok()
        .or_else(day)
        .ok_or_else(|| "expected 2026-11-28 or 2026-11-28T09:30:00Z".into())
}

/// Runs the command.
pub(super) async fn migrate(args: ContentArgs) -> anyhow::Result<Exit> {
    let mut lines = args.report.lines()?;
    let stop = synap_rpc::stop_signal();
    let mut run = Run::new(&args, stop.child_token())?;
    let total = run.services.progress().await?.estimated_entities;
    let outcome = run.all(&mut lines, total).await;
    // Of a run that was refused there is nothing to say.
    if outcome.is_ok() || run.tally.entities() > 0 {
        run.tally.print_summary(&mut lines)?;
    }
    outcome?;
    if stop.is_cancelled() {
        eprintln!("synapctl: stopped; the same command goes on from here");
        return Ok(Exit::CouldNotRun);
    }
    Ok(if run.tally.findings() { Exit::Findings } else { Exit::Well })
}

/// One run of the command.
struct Run {
    services: Arc<Services>,
    mover: Arc<Mover>,
    room: Arc<Room>,
    wanted: WantedArgs,
    pause: Duration,
    max_errors: Option<u64>,
    stop: CancellationToken,
    tally: Tally,
}

impl Run {
    fn new(args: &ContentArgs, stop: CancellationToken) -> anyhow::Result<Self> {
        let governor = Arc::new(Governor::new(args.concurrency));
        let services = Services::connect(&args.content, &args.entity, &governor, stop.clone())?;
        let mover = Mover {
            services: Arc::clone(&services),
            check: args.verify.into(),
            objects: args.rate.map(|rate| Pace::new(rate.get())),
            bytes: args.bandwidth.map(|rate| Pace::new(rate.get())),
            dry_run: args.wanted.dry_run,
        };
        Ok(Self {
            services,
            mover: Arc::new(mover),
            room: Arc::new(Room::new(args.wanted.batch_size)),
            wanted: args.wanted.clone(),
            pause: Duration::from_secs(args.pause.unwrap_or_default()),
            max_errors: args.max_errors,
            stop,
            tally: Tally::new(args.wanted.dry_run),
        })
    }

    /// Until nothing is left, or somebody says stop; then what is under way is finished.
    async fn all(&mut self, lines: &mut Lines, total: i64) -> anyhow::Result<()> {
        let (sender, mut fed) = mpsc::channel(1);
        let claims = Claims::new(
            Arc::clone(&self.services),
            Arc::clone(&self.room),
            self.wanted.clone(),
            self.pause,
            sender,
            self.stop.child_token(),
        );
        let _leases = AbortOnDropHandle::new(tokio::spawn(room::hold_leases(
            Arc::clone(&self.services),
            Arc::clone(&self.room),
            claims.claimant(),
        )));
        let claims = AbortOnDropHandle::new(tokio::spawn(claims.feed()));
        let mut progress = Progress::new();
        let mut bodies = JoinSet::new();
        let mut trouble = Ok(());
        loop {
            tokio::select! {
                Some(one) = fed.recv() => match one {
                    Fed::Looked(looked) => self.tally.looked(looked, lines)?,
                    Fed::Body(item) if trouble.is_ok() => {
                        let (mover, room) = (Arc::clone(&self.mover), Arc::clone(&self.room));
                        bodies.spawn(async move {
                            let id = item.claim.entity_id.clone();
                            let ended = mover.migrate(&item).await;
                            // Before it is asked for again.
                            drop(item);
                            room.leave(&id, matches!(ended, Ok(Ended::Conflict)));
                            ended
                        });
                    }
                    Fed::Body(item) => self.room.leave(&item.claim.entity_id, false),
                },
                Some(ended) = bodies.join_next() => match ended {
                    Ok(Ok(ended)) => self.tally.ended(ended, lines)?,
                    Ok(Err(error)) => trouble = trouble.and(Err(error)),
                    Err(lost) => std::panic::resume_unwind(lost.into_panic()),
                },
                else => break,
            }
            let too_many = self.max_errors.is_some_and(|most| self.tally.failures() >= most);
            if too_many {
                self.room.close();
            }
            if trouble.is_err() {
                // Whoever waits for the same trouble to pass need not wait, either.
                self.stop.cancel();
            }
            let entities = self.tally.entities();
            progress.show("entities", entities, total.max(entities), entities);
        }
        progress.clear();
        match claims.await {
            Ok(done) => {
                self.tally.done = done? && trouble.is_ok();
                Ok(trouble?)
            }
            Err(lost) => std::panic::resume_unwind(lost.into_panic()),
        }
    }
}
