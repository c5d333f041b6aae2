//! What a user did: lists of events, and watches.

use chrono::DateTime;
use prost_types::Timestamp;
use synap_proto::{
    gateway::{GetDailyActivityRequest, ListUserEventsRequest, UserEvent},
    reason,
};

use crate::support::{System, refusal::assert_field};

fn told(events: &[UserEvent]) -> Vec<(&str, i64)> {
    events.iter().map(|event| (event.r#type.as_str(), event.version)).collect()
}

#[tokio::test]
async fn a_user_lists_and_watches_what_is_theirs_and_nothing_else() {
    let system = System::start().await;
    let (ada, eve) = (system.client("ada"), system.client("eve"));
    let mut watch = ada.watch("").await.unwrap();
    let start = watch.next().await.unwrap();
    assert!(start.event.is_none());

    let (note, _) = ada.create("the first", "").await.unwrap();
    eve.create("not ada's", "").await.unwrap();
    let note = ada.rewrite(&note.id, "changed").await.unwrap();
    ada.delete(&note.id, "", "").await.unwrap();
    let events = watch.events(3).await;
    let all = [("entity.created", 1), ("entity.updated", 2), ("entity.deleted", 3)];
    assert_eq!(told(&events), all);
    assert!(events.iter().all(|event| event.entity_id == note.id && event.entity_type == "note"));

    // After any of them, and after what came before them all.
    assert_eq!(ada.watch(&start.cursor).await.unwrap().events(3).await, events);
    assert_eq!(ada.watch(&events[0].cursor).await.unwrap().events(2).await, events[1..]);
    let mut hers = eve.watch(&start.cursor).await.unwrap();
    let hers = hers.events(1).await;
    assert_ne!(hers[0].entity_id, note.id);

    let newest_first: Vec<_> = events.iter().rev().cloned().collect();
    let list = |page_size, page_token: &str| ListUserEventsRequest {
        page_size,
        page_token: page_token.to_owned(),
        ..ListUserEventsRequest::default()
    };
    let whole = ada.events(list(0, "")).await.unwrap();
    assert_eq!((whole.events, whole.next_page_token.as_str()), (newest_first.clone(), ""));
    let first = ada.events(list(2, "")).await.unwrap();
    assert_eq!(first.events, newest_first[..2]);
    let second = ada.events(list(2, &first.next_page_token)).await.unwrap();
    assert_eq!((&second.events[..], second.next_page_token.as_str()), (&newest_first[2..], ""));
    let updated = ListUserEventsRequest { types: vec!["entity.updated".into()], ..list(0, "") };
    assert_eq!(told(&ada.events(updated).await.unwrap().events), [all[1]]);
    let before = Some(Timestamp { seconds: 1_000_000_000, nanos: 0 });
    let before = ListUserEventsRequest { until_time: before, ..list(0, "") };
    assert_eq!(ada.events(before).await.unwrap().events, []);

    let day = newest_first[0].occur_time.unwrap();
    let day = DateTime::from_timestamp(day.seconds, 0).unwrap().date_naive().to_string();
    let mut counted = Vec::new();
    let mut days = GetDailyActivityRequest {
        start_date: "2026-01-01".to_owned(),
        end_date: day,
        page_size: 2,
        page_token: String::new(),
    };
    loop {
        let page = ada.days(days.clone()).await.unwrap();
        counted.extend(
            page.activities.into_iter().map(|day| (day.r#type, day.entity_type, day.count)),
        );
        days.page_token = page.next_page_token;
        if days.page_token.is_empty() {
            break;
        }
    }
    counted.sort_unstable();
    let once = ["entity.created", "entity.deleted", "entity.updated"];
    assert_eq!(counted, once.map(|what| (what.to_owned(), "note".to_owned(), 1)));
    let backwards = GetDailyActivityRequest { end_date: "2025-01-01".to_owned(), ..days };
    assert_field(&ada.days(backwards).await.unwrap_err(), reason::INVALID_FIELD, "end_date");

    // Ada's token is not eve's, nor for another question.
    let token = &first.next_page_token;
    for refused in [
        eve.events(list(2, token)).await,
        ada.events(ListUserEventsRequest { types: vec!["a.b".into()], ..list(2, token) }).await,
    ] {
        assert_field(&refused.unwrap_err(), reason::INVALID_FIELD, "page_token");
    }
    let refused = ada.watch("not a cursor").await.err().unwrap();
    assert_field(&refused, reason::INVALID_FIELD, "cursor");
}
