//! What event-service does unasked: partitions ahead of time. Every replica tries, one at a time
//! does it; an operator can ask for it too.

use std::{error::Error, time::Duration};

use opentelemetry::metrics::Gauge;

use crate::{
    config::UpkeepArgs,
    store::{Admin, DatabaseError, Engine, Lease, UpkeepError},
};

/// How often a database is asked whether it is there and migrated.
const READY_INTERVAL: Duration = Duration::from_secs(1);

/// The upkeep of the event store.
#[derive(Clone)]
pub(crate) struct Upkeep {
    pub(crate) admin: Admin,
    args: UpkeepArgs,
    metrics: Metrics,
}

/// What an operator wants to be told of.
#[derive(Clone)]
struct Metrics {
    outside: Gauge<u64>,
    ahead: Gauge<u64>,
}

impl Metrics {
    fn new() -> Self {
        let meter = synap_telemetry::metrics::meter();
        let gauge =
            |name, unit, what| meter.u64_gauge(name).with_unit(unit).with_description(what).build();
        Self {
            outside: gauge(
                "synap.event.default_partition.rows",
                "{event}",
                "Events in no weekly partition; more than 0 needs a person",
            ),
            ahead: gauge(
                "synap.event.partitions.ahead",
                "{partition}",
                "Partitions of weeks that have not begun",
            ),
        }
    }
}

/// What the partitions are like now.
#[derive(Debug)]
pub(crate) struct Partitions {
    /// Those that are new.
    pub(crate) made: Vec<String>,
    /// Events that are in none of them.
    pub(crate) outside: i64,
}

impl Upkeep {
    pub(crate) fn new(admin: Admin, args: UpkeepArgs) -> Self {
        Self { admin, args, metrics: Metrics::new() }
    }

    /// For ever, once the database is there.
    pub(crate) async fn run<Ready>(&self, ready: impl Fn() -> Ready)
    where
        Ready: Future<Output = bool>,
    {
        let Some(interval) = self.args.interval() else { return std::future::pending().await };
        while !ready().await {
            tokio::time::sleep(READY_INTERVAL).await;
        }
        loop {
            if let Err(error) = self.all().await {
                tracing::warn!(error = &error as &dyn Error, "the upkeep is not complete");
            }
            tokio::time::sleep(interval).await;
        }
    }

    async fn all(&self) -> Result<(), UpkeepError> {
        match self.make_partitions().await {
            // Another replica is at it.
            Err(UpkeepError::UnderWay) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Makes the partitions that are missing.
    pub(crate) async fn make_partitions(&self) -> Result<Partitions, UpkeepError> {
        self.alone(async |lease, engine| {
            let ahead = self.args.partitions_ahead.get();
            let made = self.admin.make_partitions(lease, engine, ahead).await;
            // Told in any case: above all where partitions could not be made.
            let outside = self.look(engine).await?;
            let made = made?;
            if !made.is_empty() {
                tracing::info!(count = made.len(), "partitions made");
            }
            Ok(Partitions { made, outside })
        })
        .await
    }

    /// Does work under the lease.
    async fn alone<T>(
        &self,
        work: impl AsyncFnOnce(&Lease, &Engine) -> Result<T, UpkeepError>,
    ) -> Result<T, UpkeepError> {
        let engine = self.admin.engine().await?;
        let lease = self.admin.lease().await?.ok_or(UpkeepError::UnderWay)?;
        let outcome = work(&lease, &engine).await;
        self.admin.release(lease).await;
        outcome
    }

    async fn look(&self, engine: &Engine) -> Result<i64, DatabaseError> {
        let outside = self.admin.outside(engine).await?;
        self.metrics.outside.record(outside.unsigned_abs(), &[]);
        let ahead = self.admin.segments(engine).await?;
        let ahead = ahead.iter().filter(|it| it.is_ahead).count();
        self.metrics.ahead.record(ahead as u64, &[]);
        if outside > 0 {
            tracing::warn!(count = outside, "events are in no weekly partition");
        }
        Ok(outside)
    }
}
