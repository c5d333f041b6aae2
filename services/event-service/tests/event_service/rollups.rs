//! GetDailyActivity and RebuildRollups.

use futures::{TryStreamExt as _, future::join_all};
use prost_types::Timestamp;
use synap_proto::event::{
    DailyActivity, GetDailyActivityRequest, NewEvent, RebuildRollupsRequest,
    RebuildRollupsResponse, StreamAppend, event_admin_service_client::EventAdminServiceClient,
};
use synap_rpc::RpcError;

use crate::harness::{Running, append, count, database, event, exactly, send, send_one, service};
use crate::validation::assert_invalid;

const DAY: i64 = 86_400;
/// 2026-11-23, the Monday of week 48.
const MONDAY: i64 = 1_795_392_000;

fn at(number: u128, seconds: i64, event_type: &str) -> NewEvent {
    let occur_time = Some(Timestamp { seconds, nanos: 0 });
    NewEvent { occur_time, r#type: event_type.to_owned(), ..event(number) }
}

fn question() -> GetDailyActivityRequest {
    GetDailyActivityRequest {
        user_id: "ada".to_owned(),
        start_date: "2026-11-22".to_owned(),
        end_date: "2026-11-30".to_owned(),
        ..GetDailyActivityRequest::default()
    }
}

async fn activity(running: &Running, question: GetDailyActivityRequest) -> Vec<DailyActivity> {
    let answer = running.client.clone().get_daily_activity(question).await.unwrap().into_inner();
    assert_eq!(answer.next_page_token, "");
    answer.activities
}

fn row(date: &str, event_type: &str, count: i64) -> DailyActivity {
    DailyActivity {
        date: date.to_owned(),
        r#type: event_type.to_owned(),
        aggregate_type: "note".to_owned(),
        count,
    }
}

async fn rebuild(running: &Running, dry_run: bool) -> Vec<RebuildRollupsResponse> {
    let request = RebuildRollupsRequest {
        start_date: "2026-11-22".to_owned(),
        end_date: "2026-11-24".to_owned(),
        dry_run,
    };
    let mut client = EventAdminServiceClient::new(running.channel.clone());
    client.rebuild_rollups(request).await.unwrap().into_inner().try_collect().await.unwrap()
}

#[tokio::test]
async fn every_append_is_counted_once_on_its_day_in_utc() {
    let (_database, running) = service().await;
    let events = vec![
        at(1, MONDAY - 1, "entity.created"),
        at(2, MONDAY, "entity.updated"),
        at(3, MONDAY + DAY - 1, "entity.updated"),
        at(4, MONDAY + DAY, "entity.deleted"),
    ];
    let several = StreamAppend { events, ..append(900, 0) };
    let first = StreamAppend { expected_version: exactly(0), ..append(901, 0) };
    let first = StreamAppend { events: vec![at(5, MONDAY, "entity.updated")], ..first };
    for _repeat in 0..2 {
        send_one(&running.client, several.clone()).await.unwrap();
        send_one(&running.client, first.clone()).await.unwrap();
    }
    // In the way: it must not be counted.
    let refused = StreamAppend { events: vec![at(6, MONDAY, "entity.updated")], ..first.clone() };
    send_one(&running.client, refused).await.unwrap_err();
    let other = StreamAppend { user_id: "bob".to_owned(), ..append(902, 0) };
    let other = StreamAppend { events: vec![at(7, MONDAY, "entity.updated")], ..other };
    send(&running.client, vec![other, append(903, 8)]).await.unwrap();

    let expected = [
        row("2026-11-22", "entity.created", 1),
        row("2026-11-23", "entity.updated", 3),
        row("2026-11-24", "entity.deleted", 1),
    ];
    assert_eq!(activity(&running, question()).await, expected);
    let day = GetDailyActivityRequest {
        start_date: "2026-11-23".to_owned(),
        end_date: "2026-11-23".to_owned(),
        ..question()
    };
    assert_eq!(activity(&running, day).await, expected[1..2]);

    let mut pages = Vec::new();
    let mut page = GetDailyActivityRequest { page_size: 1, ..question() };
    loop {
        let answer = running.client.clone().get_daily_activity(page.clone()).await.unwrap();
        let answer = answer.into_inner();
        pages.extend(answer.activities);
        page.page_token = answer.next_page_token;
        if page.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, expected);
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_names_its_field() {
    let (_database, running) = service().await;
    for (field, bad) in [
        ("user_id", GetDailyActivityRequest { user_id: String::new(), ..question() }),
        ("start_date", GetDailyActivityRequest { start_date: "2026-02-30".into(), ..question() }),
        ("end_date", GetDailyActivityRequest { end_date: "2026-11-21".into(), ..question() }),
        ("end_date", GetDailyActivityRequest { end_date: "2036-12-01".into(), ..question() }),
        ("page_size", GetDailyActivityRequest { page_size: 10_001, ..question() }),
        ("page_token", GetDailyActivityRequest { page_token: "x".into(), ..question() }),
        (
            "page_token",
            GetDailyActivityRequest { page_token: "2026-12-01 a b".into(), ..question() },
        ),
    ] {
        let status = running.client.clone().get_daily_activity(bad).await.unwrap_err();
        assert_invalid(&RpcError::from_status(&status), field);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_puts_counts_right_while_others_append() {
    let database = database().await;
    // Two replicas: their groups count up the same rows at the same time.
    let replicas = [
        Running::start(&database.url, &[]).await.ready().await,
        Running::start(&database.url, &[]).await.ready().await,
    ];
    let write = async |round: u128| {
        let writers = (0..8_u128).map(|writer| {
            let client = &replicas[usize::from(writer % 2 == 1)].client;
            async move {
                for n in 0..20_u128 {
                    let number = round * 10_000 + writer * 1_000 + n * 2;
                    // Two users and days in one append, in either order.
                    let swap = i64::from(n % 2 == 1);
                    let part = |user: &str, k: i64| StreamAppend {
                        user_id: user.to_owned(),
                        events: vec![at(
                            number + u128::from(k.unsigned_abs()),
                            MONDAY + DAY * ((k + swap) % 2),
                            "entity.updated",
                        )],
                        ..append((1 << 30) + (number + u128::from(k.unsigned_abs())), 0)
                    };
                    let mut appends = vec![part("ada", 0), part("bob", 1)];
                    if swap == 1 {
                        appends.reverse();
                    }
                    send(client, appends).await.unwrap();
                }
            }
        });
        join_all(writers).await;
    };
    write(1).await;
    for damage in [
        "UPDATE event_store.daily_activity SET count = count + 3 WHERE user_id = 'ada'",
        "DELETE FROM event_store.daily_activity WHERE user_id = 'bob'",
        "INSERT INTO event_store.daily_activity VALUES ('eve', '2026-11-24', 'x.y', 'note', 7)",
    ] {
        sqlx::query(damage).execute(&database.pool).await.unwrap();
    }
    let found = rebuild(&replicas[0], true).await;
    let differences: Vec<_> = found.iter().map(|day| day.differences).collect();
    assert_eq!(differences, [0, 2, 3]);
    let found_again = rebuild(&replicas[0], true).await;
    assert_eq!(found_again, found, "a dry run changed something");

    let ((), one, two) =
        tokio::join!(write(2), rebuild(&replicas[0], false), rebuild(&replicas[1], false));
    let repaired = |days: &[RebuildRollupsResponse]| days.iter().map(|day| day.differences).sum();
    let repairs: [i64; 2] = [repaired(&one), repaired(&two)];
    assert_eq!(repairs.iter().sum::<i64>(), 5, "{one:?} {two:?}");
    assert!(rebuild(&replicas[0], true).await.iter().all(|day| day.differences == 0));
    let counted = "SELECT sum(count)::bigint FROM event_store.daily_activity";
    assert_eq!(count(&database, counted).await, 2 * 8 * 20 * 2);
    for day in ["2026-11-23", "2026-11-24"] {
        let question = GetDailyActivityRequest {
            user_id: "eve".to_owned(),
            start_date: day.to_owned(),
            end_date: day.to_owned(),
            ..GetDailyActivityRequest::default()
        };
        assert_eq!(activity(&replicas[0], question).await, []);
    }
}
