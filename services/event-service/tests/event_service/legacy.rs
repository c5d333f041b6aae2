//! The events of V0.2: dual write, migration, comparison, and their end. Killed processes are in
//! synapctl's system tests.

mod old;

use std::collections::BTreeMap;

use futures::TryStreamExt as _;
use synap_proto::{
    event::{
        ArchiveEventsRequest, GetLegacyMigrationRequest, LegacyEntity, LegacyStep,
        ListQuarantinedEventsRequest, MakePartitionsRequest, MigrateLegacyEventsRequest,
        ReadStreamRequest, StreamAppend, event_admin_service_client::EventAdminServiceClient,
        expected_version::Expectation,
    },
    reason,
};
use synap_rpc::RpcError;
use synap_testkit::v02::{Generated, V02};
use tonic::Code;
use uuid::Uuid;

use self::old::Old;
use crate::{
    content::Content,
    harness::{
        Running, age, append, appended, count, empty_database, event, expecting, read, repeated,
        send_one,
    },
    validation::assert_invalid,
};

/// Kinds of the generator, and what becomes of them.
const OUTCOMES: [(&str, &str); 10] = [
    ("not_an_object", "quarantined:data"),
    ("no_entity", "quarantined:no_entity"),
    ("not_a_uuid", "quarantined:not_a_uuid"),
    ("names_nothing", "quarantined:names_nothing"),
    ("other_user", "quarantined:other_user"),
    ("odd_type", "quarantined:type"),
    ("odd_source", "quarantined:source"),
    ("over_long", "quarantined:data_too_long"),
    ("odd_number", "quarantined:data"),
    ("no_time", "quarantined:time"),
];

fn expected(made: &Generated) -> BTreeMap<String, i64> {
    let mut expected = BTreeMap::new();
    let mut add = |outcome: &str, ids: usize| {
        *expected.entry(outcome.to_owned()).or_insert(0) += i64::try_from(ids).unwrap();
    };
    for (kind, ids) in &made.events {
        let found = OUTCOMES.iter().find(|(odd, _)| odd == kind);
        add(found.map_or("migrated", |(_, outcome)| outcome), ids.len());
    }
    for (kind, ids) in &made.events_v2 {
        let outcome = match kind.as_str() {
            "own" | "relation" => "migrated",
            "again" => "already_migrated",
            "odd_type" => "quarantined:type",
            _ => "duplicate_id",
        };
        add(outcome, ids.len());
    }
    expected
}

#[tokio::test]
async fn every_old_event_is_migrated_or_kept_with_its_reason() {
    let old = Old::start(V02 { early_v03: true, ..V02::default() }).await;
    let wanted = expected(&old.made);
    let stored = "SELECT (SELECT count(*) FROM event_store.events)
                       + (SELECT count(*) FROM event_store.legacy_migration)";
    assert_eq!(old.dry_run().await, wanted);
    assert_eq!(old.count(stored).await, 0);

    let migration = old.migrate(97).await;
    let outcomes: BTreeMap<_, _> = migration.outcomes.into_iter().collect();
    assert_eq!(outcomes, wanted);
    old.check().await;
    let kept = async |reason: &str| {
        let request = ListQuarantinedEventsRequest { reason: reason.to_owned() };
        let rows = old.admin.clone().list_quarantined_events(request).await.unwrap();
        rows.into_inner().try_collect::<Vec<_>>().await.unwrap()
    };
    assert_eq!(kept("data_too_long").await.len(), old.made.events("over_long").len());
    let all = kept("").await;
    let odd: i64 = outcomes.iter().filter(|(it, _)| !it.ends_with("migrated")).map(|it| it.1).sum();
    assert_eq!(i64::try_from(all.len()).unwrap(), odd);

    // Another round finds all of it.
    let migration = old.migrate(1_000).await;
    assert_eq!((migration.round, migration.outcomes.get("migrated")), (2, None));
    old.check().await;
    assert!(old.compare().await.iter().all(|day| day.differences.is_empty()));
}

/// An entity that had `version` in V0.2 gets another event by an append of ours.
fn next_event(entity: &LegacyEntity, number: u128, adopts: bool) -> StreamAppend {
    let expected = if adopts { Expectation::Adopt } else { Expectation::Exact };
    StreamAppend {
        aggregate_type: entity.r#type.clone(),
        aggregate_id: entity.id.clone(),
        user_id: entity.user_id.clone(),
        expected_version: expecting(expected(entity.version + i64::from(!adopts))),
        events: vec![event(number)],
    }
}

#[tokio::test]
async fn history_ends_where_the_new_events_begin_whichever_came_first() {
    let old = Old::start(V02::default()).await;
    let ids: Vec<String> = old.made.entities("plain")[..2].iter().map(Uuid::to_string).collect();
    let entities = old.entities(&ids).await;
    let (before, after) = (&entities[0], &entities[1]);
    let first = |entity: &LegacyEntity| appended(entity.version + 1, entity.version + 1);
    let send = async |append| send_one(&old.running.client, append).await.unwrap();
    assert_eq!(send(next_event(before, 1, true)).await, first(before));
    let mut request = MigrateLegacyEventsRequest { batch_size: 300, ..Default::default() };
    // One in each pass, too.
    assert!(!old.step(request.clone()).await.unwrap().done);
    send(append(900, 3)).await;
    old.migrate(300).await;
    request.again = true;
    assert_eq!(send(next_event(after, 2, true)).await, first(after));
    assert_eq!(
        send(next_event(after, 2, true)).await,
        repeated(after.version + 1, after.version + 1)
    );
    assert_eq!(send(next_event(before, 4, false)).await.last_version, before.version + 2);
    let mut events = Vec::new();
    for entity in [before, after] {
        let request = ReadStreamRequest {
            user_id: entity.user_id.clone(),
            aggregate_type: entity.r#type.clone(),
            aggregate_id: entity.id.clone(),
            ..ReadStreamRequest::default()
        };
        events.push(read(&old.running.client, request).await.unwrap());
    }
    for (events, entity, new) in [(&events[0], before, 2), (&events[1], after, 1)] {
        assert_eq!(events.len(), 5 + new);
        let versions: Vec<_> = events.iter().map(|event| event.version).collect();
        let last = entity.version + i64::try_from(new).unwrap();
        assert_eq!(versions, (last - 4 - i64::try_from(new).unwrap()..=last).collect::<Vec<_>>());
        assert!(events[0].metadata.contains("legacy") && events[5].metadata == "{}");
    }
    // What was appended meanwhile is in both stores.
    assert_eq!(old.count("SELECT count(*) FROM events").await, 1_004);
    let migration = old.migrate(300).await;
    assert_eq!(migration.outcomes["already_migrated"], 4 + expected(&old.made)["migrated"]);
    assert!(old.compare().await.iter().all(|day| day.differences.is_empty()));
}

#[tokio::test]
async fn what_differs_is_named_and_keeps_the_old_tables_where_they_are() {
    let old = Old::start(V02 { early_v03: true, ..V02::default() }).await;
    let early = old.retire(LegacyStep::Rename, 0).await.unwrap_err();
    assert_eq!((early.code, &*early.reason), (Code::FailedPrecondition, reason::LEGACY_NOT_READY));
    old.migrate(1_000).await;
    let unverified = old.retire(LegacyStep::Rename, 0).await.unwrap_err();
    assert!(unverified.message.contains("comparison"), "{unverified:?}");

    let [changed, gone, new] = [10, 11, 12].map(|n| old.made.events("plain")[n]);
    for (sql, id) in [
        ("UPDATE events SET type = 'entity.other' WHERE id = $1", changed),
        ("DELETE FROM events WHERE id = $1", gone),
        ("DELETE FROM event_store.events WHERE event_id = $1", new),
    ] {
        sqlx::query(sql).bind(id).execute(&old.database.pool).await.unwrap();
    }
    let mut differences = BTreeMap::new();
    for day in old.compare().await {
        assert_eq!(day.legacy_hash == day.hash, day.differences.is_empty(), "{day:?}");
        differences.extend(day.differences.into_iter().map(|it| (it.event_id, it.kind)));
    }
    let wanted = [(changed, "different"), (gone, "only_in_event_store"), (new, "not_migrated")];
    assert_eq!(differences, wanted.map(|(id, kind)| (id.to_string(), kind.to_owned())).into());
    assert!(old.retire(LegacyStep::Rename, 0).await.is_err());
}

#[tokio::test]
async fn the_old_tables_go_by_way_of_another_name_and_can_come_back() {
    let old = Old::start(V02 { early_v03: true, ..V02::default() }).await;
    let other = Running::start(&old.database.url, &[]).await.ready().await;
    old.migrate(1_000).await;
    old.compare().await;
    send_one(&other.client, append(900, 1)).await.unwrap();
    let renamed = old.retire(LegacyStep::Rename, 0).await.unwrap();
    assert!(renamed.rename_time.is_some() && !renamed.present && !renamed.dual_write);
    // The other replica finds out by itself.
    assert_eq!(send_one(&other.client, append(900, 2)).await.unwrap(), appended(2, 2));
    let young = old.retire(LegacyStep::Drop, 30).await.unwrap_err();
    assert!(young.message.contains("30 days"), "{young:?}");

    let back = old.retire(LegacyStep::Restore, 0).await.unwrap();
    assert!(back.present && back.rename_time.is_none());
    assert_eq!(old.count("SELECT count(*) FROM events").await, 1_002);
    assert!(old.compare().await.iter().all(|day| day.differences.is_empty()));
    old.retire(LegacyStep::Rename, 0).await.unwrap();
    old.retire(LegacyStep::Drop, 0).await.unwrap();
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'events%retired'";
    assert_eq!(old.count(tables).await, 0);
    assert!(old.retire(LegacyStep::Restore, 0).await.is_err());
    send_one(&old.running.client, append(900, 3)).await.unwrap();
}

/// Each change of the old table, and what takes it back.
const SPOILED: [(&str, &str); 3] = [
    (
        "ALTER TABLE events ADD COLUMN more int NOT NULL DEFAULT 0;
      ALTER TABLE events ALTER COLUMN more DROP DEFAULT",
        "ALTER TABLE events DROP COLUMN more",
    ),
    (
        "CREATE FUNCTION frozen() RETURNS trigger LANGUAGE plpgsql
      AS $$ BEGIN RAISE 'nobody writes here'; END $$;
      CREATE TRIGGER frozen BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION frozen()",
        "DROP TRIGGER frozen ON events",
    ),
    (
        "CREATE FUNCTION stray() RETURNS trigger LANGUAGE plpgsql
      AS $$ BEGIN INSERT INTO nowhere VALUES (1); RETURN new; END $$;
      CREATE TRIGGER stray BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION stray()",
        "DROP TRIGGER stray ON events",
    ),
];

#[tokio::test]
async fn an_old_table_that_takes_nothing_is_in_nobodys_way() {
    let old = Old::start(V02 { entities: 100, events: 10, ..V02::default() }).await;
    for (number, (spoil, mend)) in (1..).zip(SPOILED) {
        sqlx::raw_sql(spoil).execute(&old.database.pool).await.unwrap();
        // A service that has not been told yet.
        let running = Running::start(&old.database.url, &[]).await.ready().await;
        let both = [append(900 + number, 2 * number), append(950 + number, 2 * number + 1)];
        let both = both.map(|append| send_one(&running.client, append));
        for sent in futures::future::join_all(both).await {
            assert_eq!(sent.unwrap(), appended(1, 1), "{spoil}");
        }
        sqlx::raw_sql(mend).execute(&old.database.pool).await.unwrap();
    }
    assert_eq!(old.count("SELECT count(*) FROM events").await, 10);
    old.migrate(100).await;
    let differences: Vec<_> =
        old.compare().await.into_iter().flat_map(|it| it.differences).collect();
    assert!(
        differences.len() == 6 && differences.iter().all(|it| it.kind == "only_in_event_store")
    );
    // Nothing that is only there goes with the old table.
    old.retire(LegacyStep::Rename, 0).await.unwrap();
}

#[tokio::test]
async fn what_was_written_while_the_table_was_renamed_keeps_it_from_being_dropped() {
    let old = Old::start(V02 { entities: 100, events: 10, ..V02::default() }).await;
    old.migrate(100).await;
    old.compare().await;
    old.retire(LegacyStep::Rename, 0).await.unwrap();
    sqlx::query(
        "INSERT INTO events_retired SELECT (jsonb_populate_record(o, jsonb_build_object(
             'id', gen_random_uuid()))).* FROM events_retired AS o WHERE o.id = $1",
    )
    .bind(old.made.events("plain")[0])
    .execute(&old.database.pool)
    .await
    .unwrap();
    let refused = old.retire(LegacyStep::Drop, 0).await.unwrap_err();
    assert!(refused.message.contains("1 rows came"), "{refused:?}");
    old.retire(LegacyStep::Restore, 0).await.unwrap();
    old.migrate(100).await;
    old.check().await;
    old.compare().await;
    old.retire(LegacyStep::Rename, 0).await.unwrap();
    old.retire(LegacyStep::Drop, 0).await.unwrap();
}

/// Of one aggregate, events of two users in turns; and one event twice, but for its data.
#[tokio::test]
async fn an_aggregate_is_its_first_users_and_has_no_gap() {
    let old = Old::start(V02 { entities: 100, early_v03: true, ..V02::default() }).await;
    sqlx::query(
        "INSERT INTO events_v2 (id, timestamp, aggregate_id, aggregate_type, event_type, user_id,
                                data, metadata, version, source)
         SELECT md5('two users ' || least(n, 9))::uuid, '2025-07-01+00'::timestamptz + least(n, 9) * interval '1 h',
                md5('the system')::uuid, 'system', 'system.tick',
                CASE least(n, 9) % 3 WHEN 0 THEN 'bob' ELSE 'ada' END,
                jsonb_build_object('n', n), NULL, 1, 'system'
         FROM generate_series(1, 10) AS n",
    )
    .execute(&old.database.pool)
    .await
    .unwrap();
    let before = expected(&old.made);
    let migration = old.migrate(3).await;
    old.check().await;
    let more = |outcome: &str| {
        migration.outcomes.get(outcome).copied().unwrap_or_default()
            - before.get(outcome).copied().unwrap_or_default()
    };
    assert_eq!((more("migrated"), more("quarantined:other_user"), more("left")), (6, 3, 0));
    // The tenth has the id of the ninth, which is in quarantine: it is kept, too.
    assert_eq!((more("duplicate_id"), more("gone")), (1, 0));
    let versions = "SELECT max(version) - min(version) FROM event_store.events
                    WHERE aggregate_type = 'system'";
    assert_eq!(old.count(versions).await, 5);
}

/// Of one entity all events but the last are old. Its versions begin below 1.
#[tokio::test]
async fn history_is_read_with_what_of_it_is_archived() {
    let content = Content::start().await;
    let more = ["--content-endpoint", &content.url, "--retention-days", "20000"];
    let old = Old::start_with(V02 { entities: 100, ..V02::default() }, &more).await;
    let id = old.made.entities("plain")[0];
    let later =
        "UPDATE events SET timestamp = timestamp + interval '3 years' WHERE isfinite(timestamp)";
    sqlx::query(later).execute(&old.database.pool).await.unwrap();
    sqlx::query(
        "UPDATE events SET timestamp = now() WHERE id = (
             SELECT id FROM events WHERE data ->> 'entityId' = $1::uuid::text AND isfinite(timestamp)
             ORDER BY timestamp DESC LIMIT 1)",
    )
    .bind(id)
    .execute(&old.database.pool)
    .await
    .unwrap();
    old.migrate(1_000).await;
    let entity = old.entities(&[id.to_string()]).await.remove(0);
    assert_eq!(entity.version, 1);
    let stream = |backwards| ReadStreamRequest {
        user_id: entity.user_id.clone(),
        aggregate_type: entity.r#type.clone(),
        aggregate_id: entity.id.clone(),
        backwards,
        ..ReadStreamRequest::default()
    };
    let mut before = read(&old.running.client, stream(false)).await.unwrap();
    assert!(before[0].version < 1 && before.last().unwrap().version == 1, "{before:?}");

    let archive = async || {
        let answers = old.admin.clone().archive_events(ArchiveEventsRequest::default()).await;
        let answers = answers.map_err(RpcError::from)?.into_inner();
        answers.map_err(RpcError::from).try_collect::<Vec<_>>().await
    };
    let early = archive().await.unwrap_err();
    assert_eq!((early.code, &*early.reason), (Code::FailedPrecondition, reason::LEGACY_NOT_READY));
    assert!(old.compare().await.iter().all(|day| day.differences.is_empty()));
    old.retire(LegacyStep::Rename, 0).await.unwrap();
    old.admin.clone().make_partitions(MakePartitionsRequest {}).await.unwrap();
    age(&old.database, 7).await;
    assert!(archive().await.unwrap().iter().any(|one| one.archived));
    assert!(old.count("SELECT count(*) FROM event_store.events WHERE version < 1").await == 0);
    assert_eq!(read(&old.running.client, stream(false)).await.unwrap(), before);
    before.reverse();
    assert_eq!(read(&old.running.client, stream(true)).await.unwrap(), before);

    // The first event of a stream may be in a file by now: no more history is numbered.
    old.retire(LegacyStep::Restore, 0).await.unwrap();
    let again = MigrateLegacyEventsRequest { batch_size: 1, again: true, ..Default::default() };
    let late = old.step(again).await.unwrap_err();
    assert_eq!((late.code, &*late.reason), (Code::FailedPrecondition, reason::LEGACY_NOT_READY));
}

#[tokio::test]
async fn a_table_that_is_not_of_v02_is_left_alone() {
    let database = empty_database().await;
    sqlx::raw_sql("CREATE TABLE events (id uuid PRIMARY KEY, what text)")
        .execute(&database.pool)
        .await
        .unwrap();
    let running = Running::start(&database.url, &[]).await.ready().await;
    send_one(&running.client, append(900, 1)).await.unwrap();
    assert_eq!(count(&database, "SELECT count(*) FROM events").await, 0);
    let mut admin = EventAdminServiceClient::new(running.channel.clone());
    let answer = admin.get_legacy_migration(GetLegacyMigrationRequest {}).await.unwrap();
    assert!(!answer.into_inner().migration.unwrap().present);
}

#[tokio::test]
async fn a_bad_request_is_refused_with_the_path_of_its_field() {
    let old = Old::start(V02 { entities: 100, events: 10, ..V02::default() }).await;
    let good = || MigrateLegacyEventsRequest { batch_size: 1, ..Default::default() };
    let entity = |id: &str, version| LegacyEntity {
        id: id.to_owned(),
        user_id: "ada".to_owned(),
        r#type: "note".to_owned(),
        version,
    };
    let id = Uuid::max().to_string();
    for (field, request) in [
        ("batch_size", MigrateLegacyEventsRequest { batch_size: 0, ..good() }),
        ("batch_size", MigrateLegacyEventsRequest { batch_size: 10_001, ..good() }),
        ("cursor", MigrateLegacyEventsRequest { cursor: "x".to_owned(), ..good() }),
        ("entities[0].id", MigrateLegacyEventsRequest { entities: vec![entity("x", 1)], ..good() }),
        (
            "entities[1].version",
            MigrateLegacyEventsRequest {
                entities: vec![entity(&id, 1), entity(&id, -1)],
                ..good()
            },
        ),
    ] {
        assert_invalid(&old.step(request).await.unwrap_err(), field);
    }
    assert_invalid(&old.retire(LegacyStep::Unspecified, 0).await.unwrap_err(), "step");
    assert_invalid(&old.retire(LegacyStep::Drop, -1).await.unwrap_err(), "min_days");
}
