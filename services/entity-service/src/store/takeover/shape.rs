//! How content_blocks is made, in the database's own words: for whoever makes it again.

use sqlx::{PgConnection, Row as _};

use super::table::refused;
use crate::{domain::TableShape, error::Error};

/// The database's own words for how the table is made. The name goes, because it will have another;
/// row security says `content_blocks` inside of its conditions, and is added when it has that.
const SHAPE: &str = "
    WITH the AS (SELECT to_regclass('content_blocks') AS relation)
    SELECT
        (SELECT array_agg(attname::text ORDER BY attname <> 'entity_id', attnum)
         FROM pg_attribute, the
         WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped AND attgenerated = '')
            AS columns,
        (SELECT format('CREATE TABLE IF NOT EXISTS {table} (%s, %s)',
                       string_agg(format('%I %s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                                         ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid),
                                         CASE WHEN a.attnotnull THEN ' NOT NULL' END),
                                  ', ' ORDER BY a.attnum),
                       (SELECT format('CONSTRAINT %I %s', conname, pg_get_constraintdef(oid))
                        FROM pg_constraint WHERE conrelid = relation AND contype = 'p'))
         FROM the JOIN pg_attribute a ON a.attrelid = relation
         LEFT JOIN pg_attrdef d ON d.adrelid = relation AND d.adnum = a.attnum
         WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
         GROUP BY relation) AS definition,
        ARRAY(SELECT format('ALTER TABLE {table} ADD CONSTRAINT %I %s', conname,
                            pg_get_constraintdef(oid))
              FROM pg_constraint, the WHERE conrelid = relation AND contype IN ('u', 'c')
              UNION ALL
              SELECT regexp_replace(pg_get_indexdef(indexrelid), ' ON (ONLY )?\\S+ USING ',
                                    ' ON {table} USING ')
              FROM pg_index i, the
              WHERE indrelid = relation AND indisvalid
                AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)) AS finish,
        ARRAY(SELECT format('ALTER TABLE {table} ADD CONSTRAINT %I %s NOT VALID', conname,
                            pg_get_constraintdef(oid))
              FROM pg_constraint, the WHERE conrelid = relation AND contype = 'f' AND convalidated
              UNION ALL
              SELECT 'ALTER TABLE {table} ENABLE ROW LEVEL SECURITY'
              FROM pg_class, the WHERE oid = relation AND relrowsecurity
              UNION ALL
              SELECT concat(format('CREATE POLICY %I ON {table} AS %s FOR %s TO %s', policyname,
                                   permissive, cmd,
                                   (SELECT string_agg(CASE role WHEN 'public' THEN 'PUBLIC'
                                                      ELSE quote_ident(role) END, ', ')
                                    FROM unnest(roles) AS role)),
                            ' USING (' || qual || ')', ' WITH CHECK (' || with_check || ')')
              FROM pg_policies, the JOIN pg_class c ON c.oid = relation
              WHERE schemaname = c.relnamespace::regnamespace::text AND tablename = c.relname
              UNION ALL
              SELECT format('GRANT %s ON {table} TO %s', privilege_type,
                            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
              FROM the JOIN pg_class c ON c.oid = relation, aclexplode(c.relacl)
              WHERE grantee <> c.relowner) AS attach";

/// The columns in the order in which they are exported, of the table by any of its names.
const COLUMNS: &str = "
    SELECT array_agg(attname::text ORDER BY attname <> 'entity_id', attnum) FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''";

const KEPT_SHAPE: &str = "
    SELECT columns, definition, finish, attach FROM legacy_content WHERE definition IS NOT NULL";

pub(super) async fn columns_of(
    connection: &mut PgConnection,
    table: &str,
) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar(COLUMNS).bind(table).fetch_one(connection).await?)
}

/// Names as SQL has them.
pub(super) fn column_list(columns: &[String]) -> String {
    let quoted = columns.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
    quoted.collect::<Vec<_>>().join(", ")
}

/// As the table is now, under its own name.
pub(super) async fn shape(connection: &mut PgConnection) -> Result<TableShape, Error> {
    from_row(&sqlx::query(SHAPE).fetch_one(connection).await?)
}

/// As it was when it was renamed.
pub(super) async fn kept_shape(connection: &mut PgConnection) -> Result<TableShape, Error> {
    match sqlx::query(KEPT_SHAPE).fetch_optional(connection).await? {
        Some(row) => from_row(&row),
        None => refused("content_blocks was not renamed by `synapctl drop-legacy`"),
    }
}

fn from_row(row: &sqlx::postgres::PgRow) -> Result<TableShape, Error> {
    Ok(TableShape {
        columns: row.try_get("columns")?,
        definition: row.try_get("definition")?,
        finish: row.try_get("finish")?,
        attach: row.try_get("attach")?,
    })
}
