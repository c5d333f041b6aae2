//! Health, reflection, migrations, start and stop.

use futures::{StreamExt as _, stream};
use sqlx::AssertSqlSafe;
use synap_event_service::{Config, Service, StartError};
use synap_proto::reason;
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::{
    Running, append, appended, config, count, database, empty_database, send_one, service, until,
};

async fn health(running: &Running, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(running.channel.clone()).check(request).await.unwrap();
    answer.get_ref().status()
}

#[tokio::test]
async fn it_is_alive_at_once_and_ready_when_somebody_has_migrated() {
    let database = empty_database().await;
    let running = Running::start(&database.url, &["--auto-migrate", "false"]).await;
    assert_eq!(health(&running, "liveness").await, ServingStatus::Serving);
    for service in ["readiness", ""] {
        assert_eq!(health(&running, service).await, ServingStatus::NotServing);
    }
    let error = send_one(&running.client, append(900, 1)).await.unwrap_err();
    assert_eq!(
        (error.code, error.reason.as_str()),
        (Code::Unavailable, reason::DATABASE_UNAVAILABLE)
    );

    synap_event_service::migrate(&database.url).await.unwrap();
    let running = running.ready().await;
    assert_eq!(health(&running, "").await, ServingStatus::Serving);
    assert_eq!(send_one(&running.client, append(900, 1)).await.unwrap(), appended(1, 1));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn it_migrates_an_empty_database_by_itself_also_beside_another_replica() {
    let database = empty_database().await;
    let (one, two) =
        tokio::join!(Running::start(&database.url, &[]), Running::start(&database.url, &[]));
    let (one, two) = tokio::join!(one.ready(), two.ready());
    assert_eq!(send_one(&one.client, append(900, 1)).await.unwrap(), appended(1, 1));
    assert_eq!(send_one(&two.client, append(900, 2)).await.unwrap(), appended(2, 2));
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let database = database().await;
    let running = Running::start(&database.url, &[]).await.ready().await;
    send_one(&running.client, append(900, 1)).await.unwrap();
    let applied = "SELECT count(*) FROM _event_migrations";
    let before = count(&database, applied).await;
    synap_event_service::migrate(&database.url).await.unwrap();
    assert_eq!(count(&database, applied).await, before);
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events").await, 1);
}

/// The events of V0.2, and events_v2 as the second week of V0.3 left it.
const LEGACY: &str = r#"
    CREATE TABLE events (
        id uuid PRIMARY KEY, user_id text NOT NULL, "timestamp" timestamptz NOT NULL,
        type text NOT NULL, data jsonb NOT NULL, source text DEFAULT 'api', correlation_id uuid);
    CREATE TABLE events_v2 (
        id uuid, "timestamp" timestamptz, aggregate_id uuid, aggregate_type text, event_type text,
        user_id text, data jsonb, metadata jsonb, version int, causation_id uuid,
        correlation_id uuid, source text);
    INSERT INTO events SELECT gen_random_uuid(), 'ada', now(), 'note.created', '{}'
        FROM generate_series(1, 100);
    INSERT INTO events_v2 SELECT gen_random_uuid(), now(), gen_random_uuid(), 'entity',
        'entity.created', 'ada', '{}', '{}', 1, null, null, 'api' FROM generate_series(1, 100);
    ALTER TABLE events ENABLE ROW LEVEL SECURITY;
"#;

/// Everything about the legacy tables that a migration could change.
const FINGERPRINT: &str = "
    SELECT md5(string_agg(line, ',' ORDER BY line)) FROM (
        SELECT e::text AS line FROM events AS e
        UNION ALL SELECT e::text FROM events_v2 AS e
        UNION ALL SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable,
                                   column_default)
                  FROM information_schema.columns WHERE table_schema = 'public'
                  AND table_name IN ('events', 'events_v2')
        UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename IN ('events', 'events_v2')
                  AND schemaname = 'public'
    ) AS lines";

#[tokio::test]
async fn a_migration_leaves_the_tables_of_older_versions_alone() {
    let database = empty_database().await;
    sqlx::raw_sql(AssertSqlSafe(LEGACY)).execute(&database.pool).await.unwrap();
    let fingerprint = async || {
        let print: String =
            sqlx::query_scalar(FINGERPRINT).fetch_one(&database.pool).await.unwrap();
        print
    };
    let before = fingerprint().await;
    let _running = Running::start(&database.url, &[]).await.ready().await;
    assert_eq!(fingerprint().await, before);
}

#[tokio::test]
async fn a_database_that_cannot_be_migrated_ends_the_service_with_the_reason() {
    let database = empty_database().await;
    sqlx::raw_sql("CREATE SCHEMA event_store").execute(&database.pool).await.unwrap();
    let running = Running::start(&database.url, &[]).await;
    let error = running.outcome().await.unwrap_err();
    assert!(matches!(error, StartError::Migrate(_)), "{error}");
    assert!(error.to_string().contains("event_store"), "{error}");
}

#[tokio::test]
async fn a_taken_port_and_a_url_of_something_else_are_told_apart() {
    let (database, running) = service().await;
    let taken = running.url.trim_start_matches("http://");
    let config_of_another = Config { listen: taken.parse().unwrap(), ..config(&database.url, &[]) };
    let error = Service::bind(config_of_another).await.err().unwrap();
    assert!(matches!(error, StartError::Listen(_)), "{error}");
    assert!(error.to_string().contains(taken), "{error}");
    let error = Service::bind(config("mysql://u:s3cret@h/d", &[])).await.err().unwrap();
    assert!(matches!(error, StartError::DatabaseUrl(_)), "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}

#[tokio::test]
async fn told_to_stop_it_finishes_what_is_under_way_and_ends() {
    let (database, running) = service().await;
    let client = running.client.clone();
    let call = tokio::spawn(async move { send_one(&client, append(900, 1)).await });
    // The event is stored; its answer may still be on its way.
    until("the append", async || {
        count(&database, "SELECT count(*) FROM event_store.events").await == 1
    })
    .await;
    running.stop().await.unwrap();
    assert_eq!(call.await.unwrap().unwrap(), appended(1, 1));
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let (_database, running) = service().await;
    let channel = Endpoint::from_shared(running.url.clone()).unwrap().connect().await.unwrap();
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "synap.event.v1.EventAdminService",
        "synap.event.v1.EventService",
    ];
    macro_rules! list {
        ($version:ident) => {{
            use $version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let ask = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let answer = ServerReflectionClient::new(channel.clone())
                .server_reflection_info(stream::iter([ask]))
                .await
                .unwrap();
            let answer = answer.into_inner().next().await.unwrap().unwrap();
            let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
                panic!("{answer:?}")
            };
            list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
        }};
    }
    for listed in [list!(v1), list!(v1alpha)] {
        for name in &expected[3..] {
            assert!(listed.iter().any(|one| one == name), "{listed:?}");
        }
        assert!(listed.iter().all(|name| expected.contains(&name.as_str())), "{listed:?}");
    }
}
