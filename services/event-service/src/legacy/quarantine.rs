//! Rows that are no events of this store, kept whole.

use futures::{Stream, TryStreamExt as _, stream};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Legacy, LegacyError,
    rows::{Origin, Row},
};

/// Rows of a page.
const PAGE: i64 = 100;

/// A row of the batch, and what is odd about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Odd {
    /// Its number in the batch.
    pub(super) row: usize,
    pub(super) reason: &'static str,
}

/// Keeps the odd rows of a batch; those that are kept already stay as they are.
pub(super) async fn keep(
    connection: &mut PgConnection,
    origin: Origin,
    rows: &[Row],
    odd: &[Odd],
) -> Result<(), sqlx::Error> {
    if odd.is_empty() {
        return Ok(());
    }
    let of = |odd: &Odd| rows.get(odd.row);
    let places: Vec<&str> = odd.iter().filter_map(of).map(|row| row.place.as_str()).collect();
    let ids: Vec<Option<Uuid>> = odd.iter().filter_map(of).map(|row| row.id).collect();
    let reasons: Vec<&str> = odd.iter().map(|odd| odd.reason).collect();
    // By the ctid: ids of events_v2 are no key, and the batch has just read the row there.
    sqlx::query(match origin {
        Origin::Events => KEEP_EVENTS,
        Origin::EventsV2 => KEEP_EVENTS_V2,
    })
    .bind(places)
    .bind(ids)
    .bind(reasons)
    .execute(connection)
    .await?;
    Ok(())
}

const KEEP_EVENTS: &str = "
    INSERT INTO event_store.legacy_quarantine (origin, row_hash, event_id, reason, data)
    SELECT 'events', md5(to_jsonb(v)::text)::uuid, v.id, n.reason, to_jsonb(v)
    FROM unnest($1::text[], $2::uuid[], $3::text[]) AS n (place, id, reason)
    JOIN public.events AS v ON v.ctid = n.place::tid AND v.id IS NOT DISTINCT FROM n.id
    ON CONFLICT (origin, row_hash) DO NOTHING";
const KEEP_EVENTS_V2: &str = "
    INSERT INTO event_store.legacy_quarantine (origin, row_hash, event_id, reason, data)
    SELECT 'events_v2', md5(to_jsonb(v)::text)::uuid, v.id, n.reason, to_jsonb(v)
    FROM unnest($1::text[], $2::uuid[], $3::text[]) AS n (place, id, reason)
    JOIN public.events_v2 AS v ON v.ctid = n.place::tid AND v.id IS NOT DISTINCT FROM n.id
    ON CONFLICT (origin, row_hash) DO NOTHING";

/// A row that is kept.
#[derive(Debug)]
pub(crate) struct Quarantined {
    pub(crate) origin: String,
    pub(crate) row_hash: Uuid,
    pub(crate) event_id: Option<Uuid>,
    pub(crate) reason: String,
    pub(crate) data: String,
}

synap_postgres::from_row!(Quarantined { origin, row_hash, event_id, reason, data });

impl Legacy {
    /// The rows that are kept, of one reason or of all.
    pub(crate) fn quarantined(
        &self,
        reason: String,
    ) -> impl Stream<Item = Result<Quarantined, LegacyError>> + Send + use<> {
        let pages = (self.clone(), reason, Some((String::new(), Uuid::nil())));
        let pages = stream::try_unfold(pages, |(legacy, reason, after)| async move {
            let Some(after) = after else { return Ok(None) };
            let page = legacy.page(&reason, &after).await?;
            let last = page.last().map(|row| (row.origin.clone(), row.row_hash));
            let rows = stream::iter(page.into_iter().map(Ok));
            Ok::<_, LegacyError>(Some((rows, (legacy, reason, last))))
        });
        pages.try_flatten()
    }

    async fn page(
        &self,
        reason: &str,
        (origin, hash): &(String, Uuid),
    ) -> Result<Vec<Quarantined>, LegacyError> {
        Ok(sqlx::query_as(
            "SELECT origin, row_hash, event_id, reason, data::text AS data
             FROM event_store.legacy_quarantine
             WHERE (origin, row_hash) > ($1, $2) AND ($3 = '' OR reason = $3)
             ORDER BY origin, row_hash
             LIMIT $4",
        )
        .bind(origin)
        .bind(hash)
        .bind(reason)
        .bind(PAGE)
        .fetch_all(self.admin.pool())
        .await?)
    }
}
