//! Calls the gateway's HTTP edge, as V0.2's clients do.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::{System, token};

pub mod raw;

pub struct Http {
    client: reqwest::Client,
    base: String,
    pub token: Option<String>,
}

impl System {
    /// The HTTP edge, for one user.
    pub fn edge(&self, user: &str) -> Http {
        Http::new(&format!("http://{}", self.http), Some(token(user)))
    }
}

impl Http {
    pub fn new(base: &str, token: Option<String>) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { client, base: base.to_owned(), token }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// `notes.create` with JSON.
    pub async fn create(&self, input: &Value) -> (StatusCode, Value) {
        self.mutate("notes.create", input).await
    }

    /// Any mutation with JSON.
    pub async fn mutate(&self, procedure: &str, input: &Value) -> (StatusCode, Value) {
        let request = self.request(Method::POST, &format!("/trpc/{procedure}"));
        answer(request.json(input)).await
    }

    /// `notes.create` with any bytes that call themselves JSON.
    pub async fn create_raw(&self, body: impl Into<reqwest::Body>) -> (StatusCode, Value) {
        let request = self.request(Method::POST, "/trpc/notes.create");
        answer(request.header("content-type", "application/json").body(body)).await
    }

    /// `notes.get` in its canonical form, with content.
    pub async fn get(&self, id: &str) -> (StatusCode, Value) {
        self.query("notes.get", &json!({ "id": id, "includeContent": true })).await
    }

    /// Any query in its canonical form.
    pub async fn query(&self, procedure: &str, input: &Value) -> (StatusCode, Value) {
        let input = url_encoded(&input.to_string());
        answer(self.request(Method::GET, &format!("/trpc/{procedure}?input={input}"))).await
    }
}

/// Status and JSON of an answer: every answer of this edge is JSON.
pub async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let body = response.bytes().await.unwrap();
    let json = serde_json::from_slice(&body).unwrap_or_else(|why| panic!("{why}: {body:?}"));
    (status, json)
}

/// The answer is tRPC's envelope of an error, with what gRPC callers get beside it.
#[track_caller]
pub fn assert_envelope(
    (status, body): &(StatusCode, Value),
    expected: u16,
    key: &str,
    reason: &str,
) {
    let error = &body["error"];
    let data = &error["data"];
    assert_eq!((status.as_u16(), data["code"].as_str()), (expected, Some(key)), "{body}");
    assert_eq!(data["httpStatus"], expected, "{body}");
    assert_eq!((&data["reason"], &data["domain"]), (&json!(reason), &json!("synap")), "{body}");
    assert!(error["code"].as_i64().is_some_and(|code| code < -32000), "{body}");
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    assert!(data["path"].is_string(), "{body}");
}

/// The answer is about one field.
#[track_caller]
pub fn assert_bad_field(answer: &(StatusCode, Value), field: &str) {
    assert_envelope(answer, 400, "BAD_REQUEST", "INVALID_FIELD");
    let violations = &answer.1["error"]["data"]["fieldViolations"];
    assert_eq!(violations[0]["field"], field, "{violations}");
    assert!(violations[0]["description"].as_str().is_some_and(|text| !text.is_empty()));
}

fn url_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
