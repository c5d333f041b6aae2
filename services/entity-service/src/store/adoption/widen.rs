//! `entities.file_size`, which early V0.3 made an integer, becomes a bigint while writers go on: a
//! second column beside it, a trigger that keeps it up, the old rows in batches, and then one takes
//! the other's place. ALTER COLUMN TYPE, as migration 0001 has it, would rewrite the table with
//! everybody locked out.

use std::time::Duration;

use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::error::Error;

const IS_NARROW: &str = "
    SELECT EXISTS (SELECT FROM pg_attribute
                   WHERE attrelid = to_regclass('entities') AND attname = 'file_size'
                     AND NOT attisdropped AND atttypid <> 'bigint'::regtype)";

/// The trigger is the last of its kind by name: it sees what the others have made of the row.
pub(super) const BEGIN: &str = "
    ALTER TABLE entities ADD COLUMN IF NOT EXISTS file_size_wide bigint;
    CREATE OR REPLACE FUNCTION synap_widen_file_size() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.file_size_wide := NEW.file_size;
        RETURN NEW;
    END
    $$;
    CREATE OR REPLACE TRIGGER zz_synap_widen_file_size BEFORE INSERT OR UPDATE ON entities
        FOR EACH ROW EXECUTE FUNCTION synap_widen_file_size()";

pub(super) const END: &str = "
    LOCK TABLE entities IN ACCESS EXCLUSIVE MODE;
    DROP TRIGGER zz_synap_widen_file_size ON entities;
    DROP FUNCTION synap_widen_file_size();
    ALTER TABLE entities DROP COLUMN file_size;
    ALTER TABLE entities RENAME COLUMN file_size_wide TO file_size";

/// What somebody else has locked is left for the next pass: nobody waits for us in a circle.
const FILL: &str = "
    WITH picked AS (
        SELECT id FROM entities
        WHERE id > $1 AND file_size_wide IS DISTINCT FROM file_size
        ORDER BY id LIMIT $2
        FOR NO KEY UPDATE SKIP LOCKED
    ),
    filled AS (
        UPDATE entities AS e SET file_size_wide = file_size FROM picked AS p WHERE e.id = p.id
        RETURNING e.id
    )
    SELECT id, count(*) OVER () AS filled FROM filled ORDER BY id DESC LIMIT 1";

const IS_FILLED: &str = "
    SELECT NOT EXISTS (SELECT FROM entities WHERE file_size_wide IS DISTINCT FROM file_size)";

/// Rows of one transaction, which keeps them locked for some ten milliseconds.
const BATCH: i64 = 1_000;
/// Between two passes over rows that somebody else has locked.
const PAUSE: Duration = Duration::from_millis(200);

/// Whether there is something to do.
pub(super) async fn is_needed(connection: &mut PgConnection) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(IS_NARROW).fetch_one(connection).await?)
}

/// Fills the second column of the rows that were there before the trigger, telling how many.
pub(super) async fn fill(
    connection: &mut PgConnection,
    mut tell: impl FnMut(i64),
) -> Result<(), sqlx::Error> {
    let (mut after, mut done) = (Uuid::nil(), 0);
    loop {
        let fill = sqlx::query(FILL).bind(after).bind(BATCH);
        if let Some(row) = fill.fetch_optional(&mut *connection).await? {
            after = row.try_get("id")?;
            done += row.try_get::<i64, _>("filled")?;
            tell(done);
        } else if sqlx::query_scalar(IS_FILLED).fetch_one(&mut *connection).await? {
            return Ok(());
        } else {
            after = Uuid::nil();
            tokio::time::sleep(PAUSE).await;
        }
    }
}
