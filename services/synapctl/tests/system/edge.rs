//! The HTTP edge changes notes as gRPC does, and refuses in the words of its own clients.

use serde_json::json;
use synap_proto::reason;

use crate::support::{
    System,
    http::{assert_bad_field, assert_envelope},
};

const ID: &str = "0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60";

#[tokio::test]
async fn the_http_edge_updates_deletes_and_undeletes() {
    let system = System::start().await;
    let edge = system.edge("ada");
    let mutate = async |procedure: &str, input: serde_json::Value| {
        let (status, body) = edge.mutate(procedure, &input).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["result"]["data"]["eventPending"], false, "{body}");
        body["result"]["data"]["note"].clone()
    };
    let first = mutate("notes.create", json!({ "content": "# First\n\nbody" })).await;
    let id = &first["id"];

    // What is given is changed.
    let change = json!({
        "id": id, "etag": first["etag"], "content": "second", "tags": ["x"], "requestId": ID,
    });
    let second = mutate("notes.update", change.clone()).await;
    assert_eq!((&second["title"], &second["tags"]), (&json!("First"), &json!(["x"])));
    assert_eq!((&second["preview"], &second["version"]), (&json!("second"), &json!(2)));
    assert_eq!(mutate("notes.update", change).await, second);
    let third = mutate("notes.update", json!({ "id": id, "title": "", "tags": [] })).await;
    assert_eq!((&third["title"], &third["tags"]), (&json!(""), &json!([])));
    let (_, read) = edge.get(id.as_str().unwrap()).await;
    assert_eq!(read["result"]["data"]["note"]["content"], "second");

    // Who has not seen that is told what there is.
    for procedure in ["notes.update", "notes.delete"] {
        let late = json!({ "id": id, "etag": first["etag"], "title": "late" });
        let refused = edge.mutate(procedure, &late).await;
        assert_envelope(&refused, 409, "CONFLICT", reason::ETAG_MISMATCH);
        assert_eq!(refused.1["error"]["data"]["metadata"]["etag"], third["etag"]);
    }
    let deleted = mutate("notes.delete", json!({ "id": id, "etag": third["etag"] })).await;
    assert!(deleted["deleteTime"].is_string(), "{deleted}");
    let gone = edge.mutate("notes.update", &json!({ "id": id, "title": "x" })).await;
    assert_envelope(&gone, 404, "NOT_FOUND", reason::NOT_FOUND);
    let undeleted = mutate("notes.undelete", json!({ "id": id, "etag": deleted["etag"] })).await;
    assert_eq!((&undeleted["version"], undeleted.get("deleteTime")), (&json!(5), None));
    let again = edge.mutate("notes.undelete", &json!({ "id": id })).await;
    assert_envelope(&again, 409, "CONFLICT", reason::NOT_DELETED);

    // Another user's is none; and a batch of one is answered with a list.
    let foreign = system.edge("eve").mutate("notes.delete", &json!({ "id": id })).await;
    assert_envelope(&foreign, 404, "NOT_FOUND", reason::NOT_FOUND);
    let (_, batch) =
        edge.mutate("notes.update?batch=1", &json!({ "0": { "id": id, "title": "Batch" } })).await;
    assert_eq!(batch[0]["result"]["data"]["note"]["title"], "Batch", "{batch}");
}

#[tokio::test]
async fn a_change_that_cannot_be_made_names_the_field_as_it_was_given() {
    let system = System::start().await;
    let edge = system.edge("ada");
    for (procedure, input, field) in [
        ("notes.update", json!({ "id": ID }), "input"),
        ("notes.update", json!({ "id": "x", "title": "t" }), "id"),
        ("notes.update", json!({ "id": ID, "etag": "x", "title": "t" }), "etag"),
        ("notes.update", json!({ "id": ID, "content": "" }), "content"),
        ("notes.update", json!({ "id": ID, "tags": ["a", ""] }), "tags[1]"),
        ("notes.update", json!({ "id": ID, "title": "t", "requestId": "x" }), "requestId"),
        ("notes.update", json!({ "id": ID, "title": 7 }), "body"),
        ("notes.update", json!(["x"]), "body"),
        ("notes.delete", json!({}), "id"),
        ("notes.delete", json!({ "id": ID, "etag": "x" }), "etag"),
        ("notes.undelete", json!({ "id": ID, "requestId": "x" }), "requestId"),
    ] {
        assert_bad_field(&edge.mutate(procedure, &input).await, field);
    }
}
