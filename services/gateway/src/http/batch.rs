//! tRPC's batches, which its clients send unless they are told not to: `/trpc/a,b?batch=1` with the
//! inputs in an object, `{"0":…,"1":…}`, is answered with a list.
//!
//! Queries are split before anything else happens, and each is then a request of its own: let in,
//! limited and traced like any other. A mutation comes alone, and its procedure takes its input out
//! of the object.

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode, Uri, request::Parts},
    response::{IntoResponse as _, Response},
};
use futures::future::join_all;
use serde_json::{Map, Value};
use synap_proto::field::{Checked, Violation};
use tower::ServiceExt as _;

use super::{input, trpc};

/// Queries of a batch at most.
const MAX_CALLS: usize = 20;

/// Whether a request is a batch.
pub(super) fn is_batch(query: Option<&str>) -> bool {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.into_iter().any(|(name, value)| name == "batch" && value == "1")
}

/// Splits a batch of queries, and hands on everything else.
pub(super) async fn split(State(router): State<Router>, request: Request) -> Response {
    if request.method() != Method::GET || !is_batch(request.uri().query()) {
        // Infallible: a router answers whatever happens.
        return router.oneshot(request).await.into_response();
    }
    let (parts, _) = request.into_parts();
    let calls = match calls(&parts) {
        Ok(calls) => calls,
        Err(why) => return trpc::failure(parts.uri.path(), &why.into()),
    };
    let answers = join_all(calls.into_iter().map(|call| answer(router.clone(), call))).await;
    let (statuses, bodies): (Vec<StatusCode>, Vec<Value>) = answers.into_iter().unzip();
    let first = statuses.first().copied().unwrap_or(StatusCode::OK);
    let same = statuses.iter().all(|status| *status == first);
    let status = if same { first } else { StatusCode::MULTI_STATUS };
    (status, Json(bodies)).into_response()
}

/// The queries of a batch, as requests.
fn calls(parts: &Parts) -> Checked<Vec<Request>> {
    let inputs: Map<String, Value> = input::from_query_json(parts.uri.query())?;
    let names: Vec<&str> = parts.uri.path().trim_start_matches("/trpc/").split(',').collect();
    if names.len() > MAX_CALLS {
        let what = format!("has {} calls; a batch has {MAX_CALLS} at most", names.len());
        return Err(Violation::new("batch", what));
    }
    let call = |(index, name): (usize, &&str)| {
        let input = inputs.get(&index.to_string()).map(Value::to_string).unwrap_or_default();
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if !input.is_empty() {
            query.append_pair("input", &input);
        }
        let uri: Uri = format!("/trpc/{name}?{}", query.finish())
            .parse()
            .map_err(|_| Violation::new("batch", "names what no path can hold"))?;
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = uri;
        *request.headers_mut() = parts.headers.clone();
        Ok(request)
    };
    names.iter().enumerate().map(call).collect()
}

async fn answer(router: Router, call: Request) -> (StatusCode, Value) {
    let response = router.oneshot(call).await.into_response();
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}
