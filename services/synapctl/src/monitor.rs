//! `synapctl monitor`: how far store and database agree, all the time.
//!
//! Three questions are asked in every interval. Of some files drawn at random: is the object there, and
//! as large as the row says? That is the sync rate, and it tells within one interval if much is gone.
//! Of those that were looked at longest ago, and of those just written: is it still what was written?
//! So every object is read again within a time that can be told beforehand. And of the next stretch of
//! the store: does a row name it? What was looked at is recorded by entity-service, so a monitor that
//! is started again goes on; the stretch begins anew at a random place.

mod alert;
mod metrics;
mod tick;

use std::{fmt, net::SocketAddr, time::Duration};

use clap::Args;
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use self::{alert::Alerts, metrics::Metrics, tick::Watch};
use crate::{
    cli::Exit,
    looks::{Looks, ServiceUrls},
    output::{Lines, ReportArgs},
};

/// R2: GET and HEAD, a million of them.
const DOLLARS_A_MILLION: f64 = 0.36;
const SECONDS_A_MONTH: f64 = 30.0 * 86_400.0;

/// Watch how far the object store and the database agree: the sync rate, objects that are missing in
/// either, and checksums. Says first in what time it covers everything, and for how many requests.
/// With --once, for a CronJob: exit code 1 if it found anything, or the sync rate is too low.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  synapctl monitor --interval 60 --webhook https://example.org/hook\n  \
                  synapctl monitor --once --output json"
)]
pub struct MonitorArgs {
    /// Seconds from one look to the next.
    #[arg(long, default_value_t = 60.0, value_parser = seconds)]
    interval: f64,
    /// Look once.
    #[arg(long)]
    once: bool,
    /// Alert when the sync rate may be below so many percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 95.0, value_parser = percent)]
    alert_below: f64,
    /// Files that are read again in each interval, those looked at longest ago first.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    batch: i32,
    /// Files just written that are read in each interval, at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    newest: i32,
    /// Files that are drawn at random in each interval and asked for, but not read.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    sample: i32,
    /// POST a JSON object here when the alert begins, and when it ends.
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// Where Prometheus finds gauges, at /metrics; not with --once.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    metrics_listen: SocketAddr,
    #[command(flatten)]
    urls: ServiceUrls,
    #[command(flatten)]
    report: ReportArgs,
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|seconds| (0.05..=86_400.0).contains(seconds));
    number.ok_or_else(|| "must be between 0.05 and 86400 seconds".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').parse::<f64>();
    let inside = |percent: &f64| *percent > 0.0 && *percent <= 100.0;
    number.ok().filter(inside).ok_or_else(|| "must be more than 0 % and at most 100 %".to_owned())
}

/// Runs the command.
pub(crate) async fn monitor(args: MonitorArgs) -> anyhow::Result<Exit> {
    let stop = synap_rpc::stop_signal();
    tokio::select! {
        () = stop.cancelled() => Ok(Exit::Well),
        outcome = watch(&args) => outcome,
    }
}

async fn watch(args: &MonitorArgs) -> anyhow::Result<Exit> {
    let mut lines = args.report.lines()?;
    let mut alerts = Alerts::new(args.webhook.clone())?;
    let mut watch = Watch::new(args, Looks::connect(&args.urls)?);
    if args.once {
        let tick = watch.look(&mut lines).await?;
        lines.print(&tick)?;
        alerts.tell(&tick).await;
        return Ok(if tick.is_well() { Exit::Well } else { Exit::Findings });
    }
    let metrics = Metrics::new();
    let serving = metrics.serve(args.metrics_listen).await?;
    let looking = look_on(args, &mut watch, &mut lines, &mut alerts, &metrics);
    tokio::select! {
        outcome = serving => outcome.map(|()| Exit::CouldNotRun),
        outcome = looking => outcome.map(|()| Exit::CouldNotRun),
    }
}

/// Looks again and again. A service that is away is news, and no end.
async fn look_on(
    args: &MonitorArgs,
    watch: &mut Watch<'_>,
    lines: &mut Lines,
    alerts: &mut Alerts,
    metrics: &Metrics,
) -> anyhow::Result<()> {
    let mut intervals = tokio::time::interval(Duration::from_secs_f64(args.interval));
    intervals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut files = None;
    loop {
        intervals.tick().await;
        match watch.look(lines).await {
            Ok(tick) => {
                if files.replace(tick.files) != Some(tick.files) {
                    lines.print(&Plan::of(args, tick.files))?;
                }
                metrics.set(&tick);
                lines.print(&tick)?;
                alerts.tell(&tick).await;
            }
            Err(error) => {
                metrics.set_down();
                tracing::error!(reason = format!("{error:#}"), "nothing could be looked at");
            }
        }
    }
}

/// What is covered in which time, for what.
#[derive(Debug, Serialize)]
struct Plan {
    covers_files: i64,
    intervals: i64,
    within_secs: f64,
    /// GET and HEAD, at most.
    class_b_a_month: f64,
    /// At R2's price.
    dollars_a_month: f64,
}

impl Plan {
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
    fn of(args: &MonitorArgs, files: i64) -> Self {
        let batch = i64::from(args.batch);
        let intervals = (files + batch - 1) / batch;
        let each = f64::from(args.batch) + f64::from(args.newest) + f64::from(args.sample);
        let class_b_a_month = each * SECONDS_A_MONTH / args.interval;
        Self {
            covers_files: files,
            intervals,
            within_secs: intervals as f64 * args.interval,
            class_b_a_month,
            dollars_a_month: class_b_a_month / 1e6 * DOLLARS_A_MILLION,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { covers_files, intervals, within_secs, class_b_a_month, dollars_a_month } = self;
        let (hours, millions) = (within_secs / 3600.0, class_b_a_month / 1e6);
        write!(
            f,
            "covers all {covers_files} files in {intervals} intervals ({hours:.1} h), for {millions:.1} \
             million class B operations a month at most (${dollars_a_month:.2} on R2)"
        )
    }
}
