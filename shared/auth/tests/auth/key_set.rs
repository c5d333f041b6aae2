//! Key sets over real HTTP on loopback.
//!
//! Time that must pass is skipped: the clock is paused, moved and let go while nothing is on the
//! wire.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use synap_auth::{AuthArgs, AuthError, Authenticator};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::Instant};

use crate::{
    keys::{ED25519, P256, P384, RSA, RSA_OTHER, args, claims, named, signed},
    user,
};

/// How an identity provider answers.
#[derive(Clone)]
enum Answer {
    Says(StatusCode, String),
    Never,
}

struct Provider {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    answer: Arc<Mutex<Answer>>,
    asked: Arc<watch::Sender<usize>>,
}

async fn serve(State(shared): State<Shared>) -> (StatusCode, String) {
    let answer = shared.answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    shared.asked.send_modify(|asked| *asked += 1);
    match answer {
        Answer::Says(code, body) => (code, body),
        Answer::Never => std::future::pending().await,
    }
}

impl Provider {
    async fn start(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, keys)
    }

    fn start_on(listener: TcpListener, keys: &[Value]) -> Self {
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(Answer::Says(StatusCode::OK, String::new())));
        let (sender, asked) = watch::channel(0);
        let shared = Shared { answer: Arc::clone(&answer), asked: Arc::new(sender) };
        let app = Router::new().route("/jwks", get(serve)).with_state(shared);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let provider = Self { address, answer, asked, task };
        provider.publish(keys);
        provider
    }

    fn publish(&self, keys: &[Value]) {
        self.says(Answer::Says(StatusCode::OK, json!({ "keys": keys }).to_string()));
    }

    fn says(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    async fn was_asked(&mut self, times: usize) {
        self.asked.wait_for(|&asked| asked >= times).await.unwrap();
    }

    fn authenticator(&self) -> Authenticator {
        let args =
            AuthArgs { jwt_jwks_url: Some(format!("http://{}/jwks", self.address)), ..args() };
        Authenticator::new(&args).unwrap()
    }

    async fn stop(self) {
        self.task.abort();
        let _aborted = self.task.await;
    }
}

async fn skip(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn every_kind_of_key_is_found_by_its_name() {
    let provider = Provider::start(&[
        RSA.jwk("rsa", Algorithm::RS256),
        P256.jwk("p256", Algorithm::ES256),
        P384.jwk("p384", Algorithm::ES384),
        ED25519.jwk("ed", Algorithm::EdDSA),
    ])
    .await;
    let authenticator = provider.authenticator();
    for (pair, algorithm, id) in [
        (&RSA, Algorithm::RS256, "rsa"),
        (&P256, Algorithm::ES256, "p256"),
        (&P384, Algorithm::ES384, "p384"),
        (&ED25519, Algorithm::EdDSA, "ed"),
    ] {
        let caller = authenticator.authenticate(Some(&named(pair, algorithm, id))).await;
        assert_eq!(caller, Ok(user("auth0|12")), "{id}");
        // Without a name, the only key that fits.
        let nameless = signed(&pair.signing, algorithm, &claims());
        let caller = authenticator.authenticate(Some(&nameless)).await;
        assert_eq!(caller, Ok(user("auth0|12")), "{id}");
    }
    for (pair, algorithm, id) in [
        (&RSA_OTHER, Algorithm::RS256, "rsa"),
        (&RSA, Algorithm::RS512, "rsa"),
        (&RSA, Algorithm::RS256, "p256"),
    ] {
        let header = named(pair, algorithm, id);
        let refused = authenticator.authenticate(Some(&header)).await;
        assert_eq!(refused, Err(AuthError::Untrusted), "{algorithm:?} as {id}");
    }
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn keys_that_are_not_for_signatures_are_passed_over() {
    let mut encryption = RSA_OTHER.jwk("encryption", Algorithm::RS256);
    encryption["use"] = json!("enc");
    let mut wrapping = RSA_OTHER.jwk("wrapping", Algorithm::RS256);
    wrapping["key_ops"] = json!(["wrapKey"]);
    let mut foreign = RSA_OTHER.jwk("foreign", Algorithm::RS256);
    foreign["alg"] = json!("RSA-OAEP");
    let mut broken = RSA_OTHER.jwk("broken", Algorithm::RS256);
    broken["kid"] = json!(7);
    let symmetric =
        json!({"kty": "oct", "kid": "symmetric", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"});
    let curve = json!({"kty": "EC", "crv": "secp256k1", "kid": "curve", "x": "AA", "y": "AA"});
    let mut any_rsa = RSA.jwk("good", Algorithm::RS256);
    any_rsa["alg"].take();
    let provider = Provider::start(&[
        encryption,
        wrapping,
        foreign,
        broken,
        symmetric,
        curve,
        json!("?"),
        any_rsa,
    ])
    .await;
    let authenticator = provider.authenticator();
    for algorithm in [Algorithm::RS256, Algorithm::PS384] {
        let header = named(&RSA, algorithm, "good");
        let caller = authenticator.authenticate(Some(&header)).await;
        assert_eq!(caller, Ok(user("auth0|12")));
    }
    for id in ["encryption", "wrapping", "foreign", "broken"] {
        let header = named(&RSA_OTHER, Algorithm::RS256, id);
        let refused = authenticator.authenticate(Some(&header)).await;
        assert_eq!(refused, Err(AuthError::Untrusted), "{id}");
    }
    let mut header = jsonwebtoken::Header::new(Algorithm::HS256);
    header.kid = Some("symmetric".to_owned());
    let published = jsonwebtoken::EncodingKey::from_secret(b"secretsecretsecretsecretsecret");
    let header = crate::keys::bearer(&header, &published, &claims());
    let refused = authenticator.authenticate(Some(&header)).await;
    assert_eq!(refused, Err(AuthError::Untrusted));
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let provider = Provider::start(&[RSA.jwk("old", Algorithm::RS256)]).await;
    let authenticator = Arc::new(provider.authenticator());
    let old = named(&RSA, Algorithm::RS256, "old");
    let new = named(&P256, Algorithm::ES256, "new");
    assert!(authenticator.authenticate(Some(&old)).await.is_ok());

    provider.publish(&[P256.jwk("new", Algorithm::ES256)]);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (authenticator, new) = (Arc::clone(&authenticator), new.clone());
            tokio::spawn(async move { authenticator.authenticate(Some(&new)).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(user("auth0|12")));
    }
    assert_eq!(provider.asked(), 2, "twenty callers, one fetch");
    let refused = authenticator.authenticate(Some(&old)).await;
    assert_eq!(refused, Err(AuthError::Untrusted), "the old key is withdrawn");
}

#[tokio::test]
async fn made_up_key_names_do_not_hammer_the_provider() {
    let provider = Provider::start(&[RSA.jwk("known", Algorithm::RS256)]).await;
    let authenticator = provider.authenticator();
    for number in 0..50 {
        let header = named(&RSA_OTHER, Algorithm::RS256, &format!("made-up-{number}"));
        let refused = authenticator.authenticate(Some(&header)).await;
        assert_eq!(refused, Err(AuthError::Untrusted));
    }
    assert_eq!(provider.asked(), 2, "the first fetch, and one for all names");

    provider.publish(&[RSA_OTHER.jwk("made-up-1", Algorithm::RS256)]);
    skip(Duration::from_secs(31)).await;
    let header = named(&RSA_OTHER, Algorithm::RS256, "made-up-1");
    assert!(authenticator.authenticate(Some(&header)).await.is_ok());
    assert_eq!(provider.asked(), 3);
}

#[tokio::test]
async fn keys_stay_while_the_provider_is_down() {
    let provider = Provider::start(&[RSA.jwk("k", Algorithm::RS256)]).await;
    let (authenticator, address) = (provider.authenticator(), provider.address);
    let good = named(&RSA, Algorithm::RS256, "k");
    assert!(authenticator.authenticate(Some(&good)).await.is_ok());

    provider.stop().await;
    skip(Duration::from_hours(24)).await;
    assert!(authenticator.authenticate(Some(&good)).await.is_ok());
    let unknown = named(&RSA_OTHER, Algorithm::RS256, "other");
    let refused = authenticator.authenticate(Some(&unknown)).await;
    assert_eq!(refused, Err(AuthError::Untrusted));
    assert!(authenticator.authenticate(Some(&good)).await.is_ok());

    let listener = TcpListener::bind(address).await.unwrap();
    let mut provider = Provider::start_on(listener, &[P256.jwk("k2", Algorithm::ES256)]);
    skip(Duration::from_secs(31)).await;
    // Served with the keys at hand, while new ones are fetched.
    assert!(authenticator.authenticate(Some(&good)).await.is_ok());
    provider.was_asked(1).await;
    let renewed = named(&P256, Algorithm::ES256, "k2");
    assert!(authenticator.authenticate(Some(&renewed)).await.is_ok());
}

#[tokio::test]
async fn old_keys_are_renewed_in_the_background() {
    let mut provider = Provider::start(&[RSA.jwk("k", Algorithm::RS256)]).await;
    let authenticator = provider.authenticator();
    let header = named(&RSA, Algorithm::RS256, "k");
    assert!(authenticator.authenticate(Some(&header)).await.is_ok());
    skip(Duration::from_mins(9)).await;
    assert!(authenticator.authenticate(Some(&header)).await.is_ok());
    assert_eq!(provider.asked(), 1);

    provider.says(Answer::Never);
    skip(Duration::from_mins(2)).await;
    for _ in 0..10 {
        // The fetch hangs, and nobody waits for it.
        assert!(authenticator.authenticate(Some(&header)).await.is_ok());
    }
    provider.was_asked(2).await;
    assert_eq!(provider.asked(), 2, "ten callers, one fetch");
}

#[tokio::test]
async fn what_is_no_key_set_leaves_the_keys_as_they_are() {
    let provider = Provider::start(&[RSA.jwk("k", Algorithm::RS256)]).await;
    let authenticator = provider.authenticator();
    let good = named(&RSA, Algorithm::RS256, "k");
    assert!(authenticator.authenticate(Some(&good)).await.is_ok());
    let oversized =
        json!({"keys": [P256.jwk("other", Algorithm::ES256)], "x": "x".repeat(1 << 20)});
    for (number, body) in
        ["<html>".to_owned(), "{}".to_owned(), r#"{"keys": []}"#.to_owned(), oversized.to_string()]
            .into_iter()
            .enumerate()
    {
        provider.says(Answer::Says(StatusCode::OK, body));
        skip(Duration::from_secs(31)).await;
        let other = named(&P256, Algorithm::ES256, "other");
        let refused = authenticator.authenticate(Some(&other)).await;
        assert_eq!(refused, Err(AuthError::Untrusted));
        assert_eq!(provider.asked(), number + 2);
        assert!(authenticator.authenticate(Some(&good)).await.is_ok());
    }
}

#[tokio::test]
async fn without_any_keys_nobody_can_tell() {
    let provider = Provider::start(&[]).await;
    let authenticator = provider.authenticator();
    let header = named(&RSA, Algorithm::RS256, "k");
    let redirect = Answer::Says(StatusCode::TEMPORARY_REDIRECT, String::new());
    let failure = Answer::Says(StatusCode::INTERNAL_SERVER_ERROR, "?".to_owned());
    for (number, answer) in [redirect, failure].into_iter().enumerate() {
        provider.says(answer);
        skip(Duration::from_secs(3)).await;
        for _ in 0..5 {
            let unknown = authenticator.authenticate(Some(&header)).await;
            assert_eq!(unknown, Err(AuthError::KeysUnavailable));
        }
        assert_eq!(provider.asked(), number + 1, "a pause between two attempts");
    }
    provider.publish(&[RSA.jwk("k", Algorithm::RS256)]);
    skip(Duration::from_secs(3)).await;
    assert!(authenticator.authenticate(Some(&header)).await.is_ok());
}

/// The paused clock runs on as soon as everybody waits: here, for an answer that never comes.
#[tokio::test]
async fn a_provider_that_hangs_is_given_five_seconds() {
    let mut provider = Provider::start(&[]).await;
    provider.says(Answer::Never);
    let authenticator = Arc::new(provider.authenticator());
    let header = named(&RSA, Algorithm::RS256, "k");
    let call = tokio::spawn({
        let (authenticator, header) = (Arc::clone(&authenticator), header.clone());
        async move { authenticator.authenticate(Some(&header)).await }
    });
    provider.was_asked(1).await;
    tokio::time::pause();
    let begun = Instant::now();
    assert_eq!(call.await.unwrap(), Err(AuthError::KeysUnavailable));
    assert!(begun.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_stop_the_fetch() {
    let mut provider = Provider::start(&[RSA.jwk("k", Algorithm::RS256)]).await;
    let authenticator = Arc::new(provider.authenticator());
    let header = named(&RSA, Algorithm::RS256, "k");
    let call = tokio::spawn({
        let (authenticator, header) = (Arc::clone(&authenticator), header.clone());
        async move { authenticator.authenticate(Some(&header)).await }
    });
    provider.was_asked(1).await;
    call.abort();
    let _aborted = call.await;
    assert!(authenticator.authenticate(Some(&header)).await.is_ok());
    assert_eq!(provider.asked(), 1);
}
