//! Counting in tables of any size, in bounded time.

use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow};

use crate::{domain::Amount, error::Error};

/// A table of more pages (64 MiB) is sampled.
pub(super) const EXACT_PAGES: i64 = 8_192;
/// So many pages of it are read, at random places.
const SAMPLE_PAGES: f64 = 2_048.0;

/// How long one count may take; set on the connections that count.
pub(super) const LIMIT: &str = "SET statement_timeout = '10s'";

const PAGES: &str = "
    SELECT pg_relation_size(to_regclass($1)) / current_setting('block_size')::bigint AS pages";

/// The part of a table that is read.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    percent: f64,
}

impl Sample {
    /// All of a small table, some pages of a large one; `None` if there is no such table.
    pub(super) async fn of(
        connection: &mut PgConnection,
        table: &str,
    ) -> Result<Option<Self>, Error> {
        let pages: Option<i64> =
            sqlx::query_scalar(PAGES).bind(table).fetch_one(connection).await?;
        Ok(pages.map(|pages| Self { percent: percent(pages) }))
    }

    /// Runs aggregates over the sample: a query that has `TABLESAMPLE SYSTEM ($1)` behind its table,
    /// and one row of `columns` counts or sums for an answer.
    pub(super) async fn amounts(
        self,
        connection: &mut PgConnection,
        query: &str,
        columns: usize,
    ) -> Result<Vec<Amount>, Error> {
        let query = sqlx::query(AssertSqlSafe(query.to_owned())).bind(self.percent);
        match query.fetch_one(connection).await {
            Ok(row) => (0..columns).map(|column| self.amount(&row, column)).collect(),
            Err(error) if took_too_long(&error) => Ok(vec![Amount::default(); columns]),
            Err(error) => Err(error.into()),
        }
    }

    fn amount(self, row: &PgRow, column: usize) -> Result<Amount, Error> {
        let counted: i64 = row.try_get::<Option<i64>, _>(column)?.unwrap_or(0);
        let about = self.percent < 100.0;
        let value = if about { scaled(counted, self.percent) } else { counted };
        Ok(Amount { value: Some(value), about })
    }
}

fn percent(pages: i64) -> f64 {
    if pages <= EXACT_PAGES {
        return 100.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 pages")]
    let pages = pages as f64;
    100.0 * SAMPLE_PAGES / pages
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "an estimate, and no table has 2^63 bytes"
)]
fn scaled(counted: i64, percent: f64) -> i64 {
    (counted as f64 * 100.0 / percent).round() as i64
}

/// The statement timeout.
pub(super) fn took_too_long(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("57014"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tables_are_counted_and_large_ones_sampled() {
        assert!((percent(EXACT_PAGES) - 100.0).abs() < f64::EPSILON);
        assert!((percent(4 * EXACT_PAGES) - 6.25).abs() < f64::EPSILON);
        assert_eq!(scaled(50, 6.25), 800);
    }
}
