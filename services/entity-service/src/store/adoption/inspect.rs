//! What a database is, and what adopting it would do.

use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow};

use super::{
    Adoption, blockers, oddities, plan,
    sample::{self, EXACT_PAGES, took_too_long},
};
use crate::{
    domain::{Amount, DatabaseState, Inspection, Phase, Table},
    error::Error,
};

const FACTS: &str = "
    SELECT current_setting('server_version') AS server, current_user::text AS role,
           (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS vector,
           (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS timescaledb,
           pg_database_size(current_database()) AS bytes,
           to_regclass('storage_phase') IS NOT NULL AS has_phase";

const PHASE: &str = "SELECT phase FROM storage_phase WHERE only_row";

const TABLES: &str = "
    SELECT c.relname::text AS name, quote_ident(c.relname) AS quoted, c.reltuples::bigint AS estimate,
           pg_relation_size(c.oid) / current_setting('block_size')::bigint AS pages,
           pg_total_relation_size(c.oid) AS bytes, c.relrowsecurity AS row_security,
           ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = c.oid ORDER BY 1) AS policies,
           pg_has_role(current_user, c.relowner, 'USAGE') AS owned
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p')
    ORDER BY bytes DESC, name LIMIT 100";

impl Adoption {
    /// Looks at the database. Nothing is changed, and no count takes longer than ten seconds.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.adoption.inspect", skip_all, err(level = "debug"))]
    pub async fn inspect(&self) -> Result<Inspection, Error> {
        let mut connection = self.connect().await?;
        let connection = &mut connection;
        sqlx::raw_sql(sample::LIMIT).execute(&mut *connection).await?;
        let state = self.state(connection).await?;
        let is_legacy = state == DatabaseState::Legacy;
        let facts = sqlx::query(FACTS).fetch_one(&mut *connection).await?;
        let phase: Option<String> = if facts.try_get("has_phase")? {
            sqlx::query_scalar(PHASE).fetch_optional(&mut *connection).await?
        } else {
            None
        };
        Ok(Inspection {
            state,
            server: facts.try_get("server")?,
            vector: facts.try_get("vector")?,
            timescaledb: facts.try_get("timescaledb")?,
            role: facts.try_get("role")?,
            bytes: facts.try_get("bytes")?,
            tables: tables(connection).await?,
            oddities: if is_legacy { oddities::count(connection).await? } else { Vec::new() },
            blockers: if is_legacy { blockers::find(connection).await? } else { Vec::new() },
            steps: plan::steps(connection, state).await?.iter().map(plan::Todo::step).collect(),
            phase: phase.and_then(|name| Phase::by_name(&name)),
        })
    }
}

async fn tables(connection: &mut PgConnection) -> Result<Vec<Table>, Error> {
    let mut tables = Vec::new();
    for row in sqlx::query(TABLES).fetch_all(&mut *connection).await? {
        tables.push(Table {
            name: row.try_get("name")?,
            rows: rows(connection, &row).await?,
            bytes: row.try_get("bytes")?,
            row_security: row.try_get("row_security")?,
            policies: row.try_get("policies")?,
            owned: row.try_get("owned")?,
        });
    }
    Ok(tables)
}

/// Counted where that is quick and allowed; otherwise what PostgreSQL remembers.
async fn rows(connection: &mut PgConnection, table: &PgRow) -> Result<Amount, Error> {
    if table.try_get("owned")? && table.try_get::<i64, _>("pages")? <= EXACT_PAGES {
        let count = format!("SELECT count(*) FROM {}", table.try_get::<&str, _>("quoted")?);
        match sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(connection).await {
            Err(error) if took_too_long(&error) => {}
            counted => return Ok(Amount { value: Some(counted?), about: false }),
        }
    }
    // -1 before it has looked for the first time.
    let estimate: i64 = table.try_get("estimate")?;
    Ok(Amount { value: Some(estimate).filter(|rows| *rows >= 0), about: true })
}
