//! Why a database cannot be adopted as it is.

use sqlx::{PgConnection, Row as _};

use super::widen;
use crate::{error::Error, service::MIGRATOR};

const OLDEST_SERVER: i32 = 150_000;

const SERVER: &str = "
    SELECT current_setting('server_version_num')::int AS number,
           EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') AS has_vector,
           r.rolsuper OR coalesce(pg_has_role(current_user, s.oid, 'MEMBER'), r.rolcreaterole)
               AS may_become,
           quote_ident(current_user) AS role
    FROM pg_roles AS r LEFT JOIN pg_roles AS s ON s.rolname = 'synap_entity'
    WHERE r.rolname = current_user";

/// Tables that we are to change, and cannot.
const TABLES: &str = "
    SELECT t.name, pg_has_role(current_user, c.relowner, 'USAGE') AS owned,
           row_security_active(c.oid) AS secured
    FROM unnest(ARRAY['entities', 'content_blocks', 'entity_vectors']) AS t (name)
    JOIN pg_class AS c ON c.oid = to_regclass(t.name)
    WHERE NOT pg_has_role(current_user, c.relowner, 'USAGE') OR row_security_active(c.oid)";

/// Columns that V0.2 has, and this database has not.
const COLUMNS: &str = "
    SELECT format('%s.%s', w.target, w.name)
    FROM (VALUES ('entities', 'id'), ('entities', 'user_id'), ('entities', 'type'),
                 ('entities', 'title'), ('entities', 'preview'), ('entities', 'version'),
                 ('entities', 'created_at'), ('entities', 'updated_at'), ('entities', 'deleted_at'),
                 ('content_blocks', 'entity_id'), ('content_blocks', 'content'),
                 ('content_blocks', 'content_type'), ('content_blocks', 'storage_provider'),
                 ('content_blocks', 'embedding')) AS w (target, name)
    WHERE to_regclass(w.target) IS NOT NULL
      AND NOT EXISTS (SELECT FROM pg_attribute
                      WHERE attrelid = to_regclass(w.target) AND attname = w.name
                        AND NOT attisdropped)";

/// Which of these tables are there.
const TAKEN: &str =
    "SELECT name FROM unnest($1::text[]) AS t (name) WHERE to_regclass(name) IS NOT NULL";

/// What would have to go with the old column.
const USERS_OF_FILE_SIZE: &str = "
    SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid)
    FROM pg_attribute AS a
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid
                       AND d.refobjsubid = a.attnum
    WHERE a.attrelid = to_regclass('entities') AND a.attname = 'file_size'
    ORDER BY 1";

/// One sentence each, with what to do about it.
pub(super) async fn find(connection: &mut PgConnection) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let server = sqlx::query(SERVER).fetch_one(&mut *connection).await?;
    let role: String = server.try_get("role")?;
    if server.try_get::<i32, _>("number")? < OLDEST_SERVER {
        found.push("PostgreSQL is older than 15: upgrade it first".to_owned());
    }
    if !server.try_get::<bool, _>("has_vector")? {
        found.push("the server has no pgvector: install 0.8.4 or newer".to_owned());
    }
    if !server.try_get::<bool, _>("may_become")? {
        found.push(format!(
            "{role} cannot become the role synap_entity: run, as a role that may, CREATE ROLE \
             synap_entity NOLOGIN; (unless it is there) GRANT synap_entity TO {role};"
        ));
    }
    for row in sqlx::query(TABLES).fetch_all(&mut *connection).await? {
        let table: &str = row.try_get("name")?;
        found.push(if row.try_get("owned")? {
            format!(
                "row security is forced on {table}: ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"
            )
        } else {
            format!("{role} does not own {table}: let entity-service connect as its owner")
        });
    }
    let columns: Vec<String> = sqlx::query_scalar(COLUMNS).fetch_all(&mut *connection).await?;
    found.extend(
        columns.iter().map(|it| format!("there is no {it}: the table is not Synap V0.2's")),
    );
    let taken: Vec<String> =
        sqlx::query_scalar(TAKEN).bind(our_tables()).fetch_all(&mut *connection).await?;
    found.extend(
        taken.iter().map(|it| format!("there is a table {it} that is not ours: rename it")),
    );
    if widen::is_needed(connection).await? {
        let users: Vec<String> =
            sqlx::query_scalar(USERS_OF_FILE_SIZE).fetch_all(&mut *connection).await?;
        found.extend(users.iter().map(|it| {
            format!("{it} uses entities.file_size, which becomes a bigint: drop it, and make it again after the adoption")
        }));
    }
    Ok(found)
}

/// Tables that our migrations make, and that are none of V0.2's.
fn our_tables() -> Vec<&'static str> {
    let lines = MIGRATOR.iter().flat_map(|migration| migration.sql.as_str().lines());
    let names = lines.filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split(' ').next());
    names.filter(|name| *name != "IF").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_tables_are_those_of_the_migrations() {
        let tables = our_tables();
        assert!(
            tables.starts_with(&["entity_revisions", "write_operations", "blob_gc"]),
            "{tables:?}"
        );
        assert!(!tables.contains(&"entities") && tables.contains(&"file_checks"), "{tables:?}");
    }
}
