//! What it comes to.

use serde::Serialize;
use synap_proto::entity::GetStatisticsResponse;

use super::prices::Prices;

/// A vector in entity_vectors takes a page, and about as much again in its index (docs/search.md).
const VECTOR_BYTES: f64 = 16_384.0;

/// What the numbers are made of.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Use {
    /// Bodies written a month: each is one PUT.
    pub(super) writes: f64,
    /// Bodies read a month: each is one GET.
    pub(super) reads: f64,
    /// Bodies that are migrated a second.
    pub(super) rate: f64,
    /// Whether every migrated body is read back.
    pub(super) reads_back: bool,
}

/// A month of one way to store it all.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Month {
    pub(super) postgres_bytes: f64,
    pub(super) postgres_usd: f64,
    pub(super) object_bytes: f64,
    pub(super) object_usd: f64,
    pub(super) operations_usd: f64,
    pub(super) total_usd: f64,
}

/// The way from one to the other.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Migration {
    pub(super) bodies: f64,
    pub(super) bytes: f64,
    pub(super) class_a: f64,
    pub(super) class_b: f64,
    pub(super) operations_usd: f64,
    pub(super) egress_usd: f64,
    pub(super) hours: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Costs {
    pub(super) v02: Month,
    pub(super) now: Month,
    pub(super) after: Month,
    pub(super) migration: Migration,
}

/// `None` if something that is needed was not counted.
pub(super) fn of(found: &GetStatisticsResponse, using: Use, prices: &Prices) -> Option<Costs> {
    let amount = |amount: Option<synap_proto::entity::Amount>| Some(real(amount?.value?));
    let (database, blocks) = (real(found.database_bytes), real(found.content_blocks_bytes));
    let objects = amount(found.object_bytes)?;
    let unmigrated = amount(found.unmigrated_bytes)?;
    // What is in both places is in PostgreSQL already.
    let in_both = amount(found.block_body_bytes)? - unmigrated;
    let only_objects = (objects - in_both).max(0.0);
    let vectors = amount(found.block_embeddings)? - amount(found.vectors)?;
    let month = |postgres: f64, objects: f64| {
        let operations = (using.writes * prices.object_class_a_million
            + using.reads * prices.object_class_b_million)
            / 1e6;
        let operations = if objects > 0.0 { operations } else { 0.0 };
        let (postgres_usd, object_usd) =
            (postgres / 1e9 * prices.postgres_gb_month, objects / 1e9 * prices.object_gb_month);
        Month {
            postgres_bytes: postgres,
            postgres_usd,
            object_bytes: objects,
            object_usd,
            operations_usd: operations,
            total_usd: postgres_usd + object_usd + operations,
        }
    };
    let bodies = amount(found.unmigrated)?;
    let gets = if using.reads_back { bodies } else { 0.0 };
    let operations_usd =
        (bodies * prices.object_class_a_million + gets * prices.object_class_b_million) / 1e6;
    let billed = (unmigrated / 1e9 - prices.postgres_egress_free_gb).max(0.0);
    let read_back = if using.reads_back { unmigrated / 1e9 } else { 0.0 };
    Some(Costs {
        v02: month(database + only_objects, 0.0),
        now: month(database, objects),
        after: month(database - blocks + vectors.max(0.0) * VECTOR_BYTES, objects + unmigrated),
        migration: Migration {
            bodies,
            bytes: unmigrated,
            class_a: bodies,
            class_b: gets,
            operations_usd,
            egress_usd: billed * prices.postgres_egress_gb + read_back * prices.object_egress_gb,
            hours: bodies / using.rate / 3_600.0,
        },
    })
}

#[expect(clippy::cast_precision_loss, reason = "dollars, not bytes")]
pub(super) fn real(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::{super::prices::BUILT_IN, *};
    use synap_proto::entity::Amount;

    /// DESIGN section 1: 10 TB in PostgreSQL are $2,300 a month.
    #[test]
    fn ten_terabytes_cost_what_the_design_says() {
        let all = |value: i64| Some(Amount { value: Some(value), about: false });
        let bodies = 9_500_000_000_000;
        let found = GetStatisticsResponse {
            database_bytes: 10_000_000_000_000,
            content_blocks_bytes: bodies,
            block_body_bytes: all(bodies),
            unmigrated: all(1_000_000_000),
            unmigrated_bytes: all(bodies),
            block_embeddings: all(0),
            vectors: all(0),
            objects: all(0),
            object_bytes: all(0),
            ..GetStatisticsResponse::default()
        };
        let prices = Prices::read(None).unwrap();
        assert!(BUILT_IN.contains("object_gb_month,0.015"));
        let using = Use { writes: 1e6, reads: 1e7, rate: 1_000.0, reads_back: true };
        let costs = of(&found, using, &prices).unwrap();
        let close = |one: f64, other: f64| assert!((one - other).abs() < 0.01, "{one} {other}");
        close(costs.v02.total_usd, 2_300.0);
        close(costs.now.total_usd, 2_300.0);
        // 0.5 TB stay, 9.5 TB at 0.015, a PUT for each write and a GET for each read.
        close(costs.after.total_usd, 115.0 + 142.5 + 4.5 + 3.6);
        close(costs.migration.operations_usd, 4_500.0 + 360.0);
        close(costs.migration.egress_usd, (9_500.0 - 100.0) * 0.10);
        close(costs.migration.hours, 1e6 / 3_600.0);
        let unknown = GetStatisticsResponse { unmigrated: None, ..found };
        assert!(of(&unknown, using, &prices).is_none());
    }
}
