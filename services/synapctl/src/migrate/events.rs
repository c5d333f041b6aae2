//! `synapctl migrate events`.

mod compare;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::Duration,
};

use clap::Args;
use serde::Serialize;
use synap_proto::{
    entity::{BatchGetEntityHeadsRequest, storage_service_client::StorageServiceClient},
    event::{
        LegacyEntity, LegacyMigration, MigrateLegacyEventsRequest, MigrateLegacyEventsResponse,
        event_admin_service_client::EventAdminServiceClient,
    },
};
use synap_rpc::{Channel, RpcError};
use tokio::time::Instant;

use crate::{
    cli::Exit,
    output::{Lines, Progress, ReportArgs},
    patience::patiently,
    services::{EntityUrl, EventUrl},
};

/// A batch may take so long: it may begin with counting all rows.
const BATCH_LIMIT: Duration = Duration::from_mins(10);

/// Migrate the events of V0.2 (table `events`) and early V0.3 (`events_v2`) into the event store,
/// with their ids and times. It can be stopped at any moment, and goes on where it was. When all is
/// migrated, running it again looks for what has come since. Exit code 1 if there are rows that this
/// store cannot hold: they are kept, `synapctl events quarantine` lists them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  synapctl migrate events --dry-run\n  \
                  synapctl migrate events --rate 5000 --report migrate.ndjson\n  \
                  synapctl migrate events --verify")]
pub(super) struct EventsArgs {
    #[command(flatten)]
    event: EventUrl,
    #[command(flatten)]
    entity: EntityUrl,
    /// Only say what would become of the rows.
    #[arg(long, conflicts_with = "verify")]
    dry_run: bool,
    /// Compare old and new events, day by day; migrate nothing. Exit code 1 if they differ.
    #[arg(long)]
    verify: bool,
    /// Rows of a transaction.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(i32).range(1..=2_000))]
    batch_size: i32,
    /// Rows a second at most; each is looked at twice.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Stop after so many rows, each counted once for every look.
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the command.
pub(super) async fn migrate(args: EventsArgs) -> anyhow::Result<Exit> {
    let mut lines = args.report.lines()?;
    let event = args.event.connect()?;
    if args.verify {
        return compare::compare(event, &mut lines).await;
    }
    let entity = args.entity.connect()?;
    let stubs = Stubs {
        event: EventAdminServiceClient::new(event),
        entity: StorageServiceClient::new(entity),
    };
    let stop = synap_rpc::stop_signal();
    let mut run = Run { args, stubs, seen: 0, outcomes: BTreeMap::new() };
    tokio::select! {
        // A batch that is under way ends by itself, and counts.
        () = stop.cancelled() => {
            eprintln!("\nsynapctl: stopped; the same command goes on from here");
            Ok(Exit::CouldNotRun)
        }
        outcome = run.all(&mut lines) => outcome,
    }
}

struct Stubs {
    event: EventAdminServiceClient<Channel>,
    entity: StorageServiceClient<Channel>,
}

struct Run {
    args: EventsArgs,
    stubs: Stubs,
    /// Rows of this call, in both passes.
    seen: i64,
    /// Of a dry run; otherwise event-service keeps them.
    outcomes: BTreeMap<String, i64>,
}

impl Run {
    async fn all(&mut self, lines: &mut Lines) -> anyhow::Result<Exit> {
        let mut progress = Progress::new();
        let begun = Instant::now();
        let mut request = MigrateLegacyEventsRequest {
            batch_size: self.args.batch_size,
            dry_run: self.args.dry_run,
            again: true,
            ..MigrateLegacyEventsRequest::default()
        };
        loop {
            if let Some(limit) = self.args.limit {
                let left = (limit - self.seen).min(self.args.batch_size.into());
                request.batch_size = i32::try_from(left)?;
            }
            let answer = self.stubs.batch(&mut request).await?;
            // A round that ends while this runs is the last one.
            request.again = false;
            let before = self.seen;
            self.seen += answer.outcomes.values().sum::<i64>();
            let migration = answer.migration.unwrap_or_default();
            if self.args.dry_run {
                for (outcome, number) in answer.outcomes {
                    *self.outcomes.entry(outcome).or_default() += number;
                }
                progress.show("dry run", self.seen, self.seen, self.seen);
            } else {
                let what = if migration.pass == "survey" { "survey" } else { "copy" };
                progress.show(what, migration.seen_rows, migration.total_rows, self.seen);
            }
            let limited = self.args.limit.is_some_and(|limit| self.seen >= limit);
            if answer.done || limited {
                progress.clear();
                return self.summary(answer.done, migration, lines);
            }
            if let Some(rate) = self.args.rate {
                let due = Duration::from_secs_f64(seconds(self.seen, rate));
                if self.seen > before {
                    tokio::time::sleep_until(begun + due).await;
                }
            }
            request.cursor = answer.next_cursor;
        }
    }

    fn summary(
        &mut self,
        done: bool,
        migration: LegacyMigration,
        lines: &mut Lines,
    ) -> anyhow::Result<Exit> {
        let outcomes = if self.args.dry_run {
            std::mem::take(&mut self.outcomes)
        } else {
            migration.outcomes.into_iter().collect()
        };
        let odd = |outcome: &String| outcome != "migrated" && outcome != "already_migrated";
        let findings = outcomes.keys().any(odd);
        let round = migration.round;
        lines.print(&Summary { dry_run: self.args.dry_run, done, round, outcomes })?;
        Ok(if findings { Exit::Findings } else { Exit::Well })
    }
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 rows")]
fn seconds(rows: i64, rate: u32) -> f64 {
    rows as f64 / f64::from(rate)
}

impl Stubs {
    /// One batch: event-service may ask for entities first.
    async fn batch(
        &self,
        request: &mut MigrateLegacyEventsRequest,
    ) -> Result<MigrateLegacyEventsResponse, RpcError> {
        request.entities.clear();
        loop {
            let answer = patiently(|| async {
                let mut call = tonic::Request::new(request.clone());
                call.set_timeout(BATCH_LIMIT);
                Ok(self.event.clone().migrate_legacy_events(call).await?.into_inner())
            })
            .await?;
            if answer.unknown_entities.is_empty() {
                return Ok(answer);
            }
            request.entities.extend(self.entities(answer.unknown_entities).await?);
        }
    }

    /// What they are; those that there are not, without an owner.
    async fn entities(&self, ids: Vec<String>) -> Result<Vec<LegacyEntity>, RpcError> {
        let answer = patiently(|| async {
            let request = BatchGetEntityHeadsRequest { ids: ids.clone() };
            Ok(self.entity.clone().batch_get_entity_heads(request).await?.into_inner())
        })
        .await?;
        let mut heads: HashMap<_, _> =
            answer.heads.into_iter().map(|head| (head.id.clone(), head)).collect();
        let entity = |id: String| match heads.remove(&id) {
            Some(head) => LegacyEntity {
                id,
                user_id: head.user_id,
                r#type: head.r#type,
                version: head.version.into(),
            },
            None => LegacyEntity { id, ..LegacyEntity::default() },
        };
        Ok(ids.into_iter().map(entity).collect())
    }
}

/// What became of the rows.
#[derive(Debug, Serialize)]
struct Summary {
    dry_run: bool,
    done: bool,
    round: i32,
    outcomes: BTreeMap<String, i64>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (outcome, number) in &self.outcomes {
            writeln!(f, "{number:>12}  {outcome}")?;
        }
        let Self { dry_run, done, outcomes, .. } = self;
        f.write_str(match (dry_run, done) {
            (true, _) => "nothing was changed",
            (false, false) => "there is more to do: the same command goes on",
            (false, true) if outcomes.contains_key("left") => {
                "some rows came while it ran: once more"
            }
            (false, true) => "all is migrated; next: synapctl migrate events --verify",
        })
    }
}
