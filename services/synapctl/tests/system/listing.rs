//! Lists: each note once, whatever is written meanwhile, and no page for anybody else.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use prost_types::Timestamp;
use reqwest::Method;
use serde_json::json;
use synap_proto::{
    gateway::{CreateNoteRequest, ListNotesRequest, Note},
    reason,
};

use crate::support::{
    Client, System,
    client::new_note,
    http::{answer, assert_bad_field},
    refusal::assert_field,
};

async fn create_many(client: &Client, count: usize) -> Vec<Note> {
    stream::iter(0..count)
        .map(|n| async move { client.create(&format!("note {n}"), "").await })
        .buffer_unordered(8)
        .map_ok(|(note, _)| note)
        .try_collect()
        .await
        .unwrap()
}

fn ids(notes: &[Note]) -> Vec<&str> {
    notes.iter().map(|note| note.id.as_str()).collect()
}

fn position(note: &Note) -> (i64, i32, &str) {
    let time = note.create_time.unwrap();
    (time.seconds, time.nanos, &note.id)
}

#[tokio::test]
async fn each_note_is_listed_once_while_others_are_written() {
    let system = System::start().await;
    let client = system.client("ada");
    let mut there = create_many(&client, 120).await;
    system.client("bob").create("not ada's", "").await.unwrap();
    there.sort_by(|a, b| position(b).cmp(&position(a)));

    let (done, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    let writer = async {
        while !done.load(Ordering::Relaxed) {
            client.create("meanwhile", "").await.unwrap();
            written.fetch_add(1, Ordering::Relaxed);
        }
    };
    let reader = async {
        for page_size in [1, 7, 119] {
            let all = client
                .list_all(ListNotesRequest { page_size, ..Default::default() })
                .await
                .unwrap();
            assert!(all.is_sorted_by(|a, b| position(a) > position(b)), "out of order");
            let old: Vec<_> = all.into_iter().filter(|note| note.preview != "meanwhile").collect();
            assert_eq!(old, there);
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(writer, reader);
    assert!(written.load(Ordering::Relaxed) > 0);

    let first = client.list(ListNotesRequest::default()).await.unwrap();
    assert_eq!(first.notes.len(), 50);
    let most = client.list(ListNotesRequest { page_size: 1000, ..Default::default() }).await;
    assert_eq!(most.unwrap().notes.len(), (120 + written.into_inner()).min(200));
}

#[tokio::test]
async fn a_list_can_be_narrowed() {
    let system = System::start().await;
    let client = system.client("ada");
    let tagged = async |tags: &[&str]| {
        let tags = tags.iter().map(ToString::to_string).collect();
        let request = CreateNoteRequest { tags, ..new_note("text", "") };
        client.send(client.request(request)).await.unwrap().0
    };
    let both = tagged(&["work", "urgent"]).await;
    let work = tagged(&["work"]).await;
    let none = tagged(&[]).await;
    let list = async |request: ListNotesRequest| client.list(request).await.unwrap().notes;
    let with = |tags: &[&str]| ListNotesRequest {
        tags: tags.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    assert_eq!(ids(&list(with(&["work"])).await), [&*work.id, &*both.id]);
    assert_eq!(ids(&list(with(&["urgent", "work"])).await), [&*both.id]);
    assert_eq!(ids(&list(with(&["Work"])).await), [""; 0]);

    let since = ListNotesRequest { created_from: work.create_time, ..Default::default() };
    assert_eq!(ids(&list(since).await), [&*none.id, &*work.id]);
    let before = ListNotesRequest { created_until: work.create_time, ..Default::default() };
    assert_eq!(ids(&list(before.clone()).await), [&*both.id]);
    let updated = ListNotesRequest { updated_from: none.update_time, ..Default::default() };
    assert_eq!(ids(&list(updated).await), [&*none.id]);
    let never = ListNotesRequest { updated_until: both.update_time, ..before };
    assert_eq!(ids(&list(never).await), [""; 0]);

    sqlx::query("UPDATE entities SET deleted_at = now() WHERE id = $1::uuid")
        .bind(&work.id)
        .execute(&system.database.pool)
        .await
        .unwrap();
    assert_eq!(ids(&list(ListNotesRequest::default()).await), [&*none.id, &*both.id]);
    let deleted = ListNotesRequest { show_deleted: true, ..Default::default() };
    let all = list(deleted).await;
    assert_eq!(ids(&all), [&*none.id, &*work.id, &*both.id]);
    assert!(all[1].delete_time.is_some() && all[0].delete_time.is_none());
}

#[tokio::test]
async fn a_page_token_is_good_for_one_user_and_one_list() {
    let system = System::start().await;
    let (ada, bob) = (system.client("ada"), system.client("bob"));
    create_many(&ada, 3).await;
    create_many(&bob, 3).await;
    let page = |page_token: &str| ListNotesRequest {
        page_size: 1,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let token = ada.list(page("")).await.unwrap().next_page_token;
    // The size of a page may change on the way.
    let rest = ListNotesRequest { page_size: 10, ..page(&token) };
    assert_eq!(ada.list(rest).await.unwrap().notes.len(), 2);

    let time = Some(Timestamp::default());
    for (who, request) in [
        (&bob, page(&token)),
        (&ada, ListNotesRequest { show_deleted: true, ..page(&token) }),
        (&ada, ListNotesRequest { tags: vec!["x".to_owned()], ..page(&token) }),
        (&ada, ListNotesRequest { created_from: time, ..page(&token) }),
        (&ada, page(&token[1..])),
        (&ada, page("bm90IGEgdG9rZW4")),
    ] {
        let refused = who.list(request).await.unwrap_err();
        assert_field(&refused, reason::INVALID_FIELD, "page_token");
    }
    let negative = ListNotesRequest { page_size: -1, ..page("") };
    assert_field(&ada.list(negative).await.unwrap_err(), reason::INVALID_FIELD, "page_size");
}

#[tokio::test]
async fn the_http_edge_lists_in_both_forms_of_a_query() {
    let system = System::start().await;
    let client = system.client("ada");
    let notes = create_many(&client, 3).await;
    let edge = system.edge("ada");
    let (status, first) = edge.query("notes.list", &json!({ "pageSize": 2 })).await;
    assert_eq!(status, 200, "{first}");
    let data = &first["result"]["data"];
    assert_eq!(data["notes"].as_array().unwrap().len(), 2);
    assert!(data["notes"][0]["createTime"].is_string(), "{data}");
    let token = data["nextPageToken"].as_str().unwrap();

    let path = format!("/trpc/notes.list?pageSize=2&pageToken={token}");
    let (_, last) = answer(edge.request(Method::GET, &path)).await;
    let data = &last["result"]["data"];
    assert_eq!((data["notes"].as_array().unwrap().len(), &data["nextPageToken"]), (1, &json!("")));
    assert!(notes.iter().any(|note| note.id == data["notes"][0]["id"]));

    let foreign = system.edge("bob").query("notes.list", &json!({ "pageToken": token })).await;
    assert_bad_field(&foreign, "pageToken");
    let wrong = edge.query("notes.list", &json!({ "createdFrom": "yesterday" })).await;
    assert_bad_field(&wrong, "createdFrom");
}
