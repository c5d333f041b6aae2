//! `synapctl cost`: what is stored, in dollars.

mod model;
mod prices;

use std::{fmt, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use synap_proto::entity::{
    GetStatisticsRequest, GetStatisticsResponse, adoption_service_client::AdoptionServiceClient,
};

use crate::{cli::Exit, output::ReportArgs, patience::patiently, services::EntityUrl, units};
use model::{Costs, Month, Use};
use prices::Prices;

/// Counting may take so long.
const LIMIT: Duration = Duration::from_mins(2);

/// Bodies a second that are put and read back one after the other, by what docs/benchmarks.md has of
/// 4 KiB through content-service on S3: 1 / (1 / 1757 + 1 / 2850), rounded down.
const MEASURED_RATE: f64 = 1_000.0;

/// A note is read so much more often than written: nobody counts reads, so this is a guess.
const READS_PER_WRITE: f64 = 10.0;

/// Say what is stored costs, and what its migration will.
///
/// A month as V0.2 kept it all, as it is now, and when all bodies are in the object store. Sizes are
/// those of entity-service's database and of the bodies that its rows name: an event store in another
/// database, and its archive, are not among them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  synapctl cost\n  synapctl cost --print-prices > prices.csv\n  \
                  synapctl cost --prices prices.csv --rate 400 --output json"
)]
pub struct CostArgs {
    #[command(flatten)]
    entity: EntityUrl,
    /// A table of prices, in place of the one that is built in.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Only print the table of prices.
    #[arg(long)]
    print_prices: bool,
    /// Bodies that are migrated a second; `synapctl bench migrate` measures it.
    #[arg(long, default_value_t = MEASURED_RATE, value_parser = positive)]
    rate: f64,
    /// Migrated bodies are not read back (`migrate content --verify head` or `none`).
    #[arg(long)]
    no_read_back: bool,
    /// Bodies written a month. Without it: the entities that were written within 30 days.
    #[arg(long, value_parser = positive)]
    writes: Option<f64>,
    /// Bodies read a month. Without it: ten for each that is written.
    #[arg(long, value_parser = positive)]
    reads: Option<f64>,
    #[command(flatten)]
    report: ReportArgs,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

/// Runs the command.
pub(crate) async fn cost(args: CostArgs) -> anyhow::Result<Exit> {
    let prices = Prices::read(args.prices.as_deref())?;
    if args.print_prices {
        print!("{}", prices::BUILT_IN);
        return Ok(Exit::Well);
    }
    let entity = AdoptionServiceClient::new(args.entity.connect()?);
    let found = patiently(|| async {
        let mut call = tonic::Request::new(GetStatisticsRequest {});
        call.set_timeout(LIMIT);
        Ok(entity.clone().get_statistics(call).await?.into_inner())
    })
    .await?;
    let recent = found.recent_entities.and_then(|amount| amount.value).unwrap_or(0);
    let writes = args.writes.unwrap_or_else(|| model::real(recent));
    let using = Use {
        writes,
        reads: args.reads.unwrap_or(writes * READS_PER_WRITE),
        rate: args.rate,
        reads_back: !args.no_read_back,
    };
    let costs = model::of(&found, using, &prices)
        .context("a table could not be counted within ten seconds; try again when it is quieter")?;
    let about = is_about(&found);
    args.report.lines()?.print(&Bill { about, using, prices, costs })?;
    Ok(Exit::Well)
}

/// Whether a large table was sampled.
fn is_about(found: &GetStatisticsResponse) -> bool {
    let amounts = [
        found.entities,
        found.block_body_bytes,
        found.object_bytes,
        found.unmigrated_bytes,
        found.vectors,
    ];
    amounts.into_iter().flatten().any(|amount| amount.about)
}

#[derive(Debug, Serialize)]
struct Bill {
    /// Sizes are estimates: large tables are sampled.
    about: bool,
    using: Use,
    prices: Prices,
    #[serde(flatten)]
    costs: Costs,
}

impl fmt::Display for Bill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Costs { v02, now, after, migration } = &self.costs;
        let months = [v02, now, after];
        let line = |f: &mut fmt::Formatter<'_>, name: &str, cell: fn(&Month) -> String| {
            write!(f, "{name:<24}")?;
            for month in months {
                write!(f, "{:>14}", cell(month))?;
            }
            writeln!(f)
        };
        writeln!(f, "{:<24}{:>14}{:>14}{:>14}", "a month", "as V0.2", "now", "after")?;
        line(f, "in PostgreSQL", |month| size(month.postgres_bytes))?;
        line(f, "", |month| dollars(month.postgres_usd))?;
        line(f, "in the object store", |month| size(month.object_bytes))?;
        line(f, "", |month| dollars(month.object_usd))?;
        line(f, "its operations", |month| dollars(month.operations_usd))?;
        line(f, "together", |month| dollars(month.total_usd))?;
        writeln!(
            f,
            "\nto migrate: {} bodies of {}, in {:.1} hours at {} a second",
            count(migration.bodies),
            size(migration.bytes),
            migration.hours,
            self.using.rate
        )?;
        writeln!(
            f,
            "  {} PUT and {} GET: {}; out of PostgreSQL and the store: {} at most",
            count(migration.class_a),
            count(migration.class_b),
            dollars(migration.operations_usd),
            dollars(migration.egress_usd)
        )?;
        write!(
            f,
            "\nfor {} bodies written and {} read a month{}",
            count(self.using.writes),
            count(self.using.reads),
            if self.about { "; sizes are estimated from a part of the tables" } else { "" }
        )
    }
}

fn dollars(usd: f64) -> String {
    format!("${usd:.2}")
}

fn size(bytes: f64) -> String {
    units::bytes(whole(bytes))
}

fn count(number: f64) -> String {
    units::grouped(whole(number))
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, and nobody stores that much")]
fn whole(number: f64) -> i64 {
    number.round() as i64
}
