//! A database of V0.2, and the calls that end its events.

use std::collections::{BTreeMap, HashMap};

use futures::TryStreamExt as _;
use synap_proto::event::{
    CompareLegacyEventsRequest, CompareLegacyEventsResponse, LegacyEntity, LegacyMigration,
    LegacyStep, MigrateLegacyEventsRequest, MigrateLegacyEventsResponse, RetireLegacyEventsRequest,
    event_admin_service_client::EventAdminServiceClient,
};
use synap_rpc::{Channel, RpcError};
use synap_testkit::{
    postgres::TestDatabase,
    v02::{Generated, V02},
};

use crate::harness::{Running, count, empty_database};

/// A database of V0.2 with a service on it.
pub struct Old {
    pub database: TestDatabase,
    pub made: Generated,
    pub running: Running,
    pub admin: EventAdminServiceClient<Channel>,
}

impl Old {
    pub async fn start(wanted: V02) -> Self {
        Self::start_with(wanted, &[]).await
    }

    pub async fn start_with(wanted: V02, more: &[&str]) -> Self {
        let database = empty_database().await;
        let made = wanted.generate(&database.pool).await;
        let running = Running::start(&database.url, more).await.ready().await;
        let admin = EventAdminServiceClient::new(running.channel.clone());
        Self { database, made, running, admin }
    }

    /// What entity-service would say.
    pub async fn entities(&self, ids: &[String]) -> Vec<LegacyEntity> {
        let rows: Vec<(String, String, String, i32)> = sqlx::query_as(
            "SELECT id::text, user_id, type, version FROM entities WHERE id = ANY ($1::uuid[])",
        )
        .bind(ids)
        .fetch_all(&self.database.pool)
        .await
        .unwrap();
        let mut found: HashMap<_, _> = rows
            .into_iter()
            .map(|(id, user_id, r#type, version)| {
                (id.clone(), LegacyEntity { id, user_id, r#type, version: version.into() })
            })
            .collect();
        let missing = |id: &String| LegacyEntity { id: id.clone(), ..LegacyEntity::default() };
        ids.iter().map(|id| found.remove(id).unwrap_or_else(|| missing(id))).collect()
    }

    pub async fn step(
        &self,
        mut request: MigrateLegacyEventsRequest,
    ) -> Result<MigrateLegacyEventsResponse, RpcError> {
        loop {
            let answer = self.admin.clone().migrate_legacy_events(request.clone()).await;
            let answer = answer.map_err(RpcError::from)?.into_inner();
            if answer.unknown_entities.is_empty() {
                return Ok(answer);
            }
            request.entities = self.entities(&answer.unknown_entities).await;
        }
    }

    /// Migrates everything, in one round.
    pub async fn migrate(&self, batch_size: i32) -> LegacyMigration {
        let mut request =
            MigrateLegacyEventsRequest { batch_size, again: true, ..Default::default() };
        loop {
            let answer = self.step(request.clone()).await.unwrap();
            if answer.done {
                return answer.migration.unwrap();
            }
            request.again = false;
        }
    }

    pub async fn dry_run(&self) -> BTreeMap<String, i64> {
        let mut outcomes = BTreeMap::new();
        let mut request =
            MigrateLegacyEventsRequest { batch_size: 97, dry_run: true, ..Default::default() };
        loop {
            let answer = self.step(request.clone()).await.unwrap();
            for (outcome, number) in answer.outcomes {
                *outcomes.entry(outcome).or_default() += number;
            }
            if answer.done {
                return outcomes;
            }
            request.cursor = answer.next_cursor;
        }
    }

    pub async fn compare(&self) -> Vec<CompareLegacyEventsResponse> {
        let days = self.admin.clone().compare_legacy_events(CompareLegacyEventsRequest {}).await;
        days.unwrap().into_inner().try_collect().await.unwrap()
    }

    pub async fn retire(
        &self,
        step: LegacyStep,
        min_days: i32,
    ) -> Result<LegacyMigration, RpcError> {
        let request = RetireLegacyEventsRequest { step: step.into(), min_days, dry_run: false };
        let answer = self.admin.clone().retire_legacy_events(request).await;
        answer.map_err(RpcError::from).map(|answer| answer.into_inner().migration.unwrap())
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        count(&self.database, query).await
    }

    /// Nothing twice, nothing lost, every time as it was, no version missing.
    pub async fn check(&self) {
        let lost = "SELECT count(*) FROM events v
            WHERE NOT EXISTS (SELECT FROM event_store.events e WHERE e.event_id = v.id
                              AND e.occurred_at = v.timestamp AND e.user_id = v.user_id
                              AND e.event_type = v.type)
              AND NOT EXISTS (SELECT FROM event_store.legacy_quarantine q
                              WHERE q.event_id = v.id AND q.data = to_jsonb(v))";
        assert_eq!(self.count(lost).await, 0);
        let twice = "SELECT count(*) - count(DISTINCT event_id) FROM event_store.events";
        assert_eq!(self.count(twice).await, 0);
        let gaps = "SELECT count(*) FROM (
            SELECT max(e.version) - min(e.version) + 1 <> count(*)
                   OR count(DISTINCT e.version) <> count(*) OR max(e.version) <> max(s.version) AS gap
            FROM event_store.events e JOIN event_store.streams s USING (aggregate_type, aggregate_id)
            GROUP BY e.aggregate_type, e.aggregate_id) AS streams WHERE gap";
        assert_eq!(self.count(gaps).await, 0);
        let disorder = "SELECT count(*) FROM (
            SELECT occurred_at < lag(occurred_at) OVER (PARTITION BY aggregate_type, aggregate_id
                                                        ORDER BY version) AS back
            FROM event_store.events) AS o WHERE back";
        assert_eq!(self.count(disorder).await, 0);
        let counted = "SELECT (SELECT count(*) FROM event_store.events)
                            - (SELECT sum(count) FROM event_store.daily_activity)::bigint";
        assert_eq!(self.count(counted).await, 0);
    }
}
