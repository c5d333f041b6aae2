//! The key set that an identity provider publishes (RFC 7517), kept at hand.
//!
//! It is fetched when the first token comes, again in the background when it is old, and again when
//! a token names a key that is not in it: that is how providers rotate. As anybody can make up key
//! names, the last happens rarely. Once there are keys they stay until others replace them: a
//! provider that is down must not lock anybody out.

use std::{net::IpAddr, sync::Arc, time::Duration};

use jsonwebtoken::{Header, jwk::Jwk};
use reqwest::{Client, redirect};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::{Mutex, OwnedMutexGuard, watch},
    time::Instant,
};
use url::{Host, Url};

use crate::{
    AuthConfigError, AuthError,
    key::{Key, Rules},
};

/// How old keys may get before they are fetched again: a key that was withdrawn is trusted so long.
const REFRESH_AFTER: Duration = Duration::from_mins(10);
/// Between two fetches for keys that nobody knows.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(30);
/// Between two fetches in the background while they fail.
const STALE_PAUSE: Duration = Duration::from_secs(30);
/// Between two fetches while there are no keys at all and so no call can be served.
const NO_KEYS_PAUSE: Duration = Duration::from_secs(2);
/// For connection, headers and body together.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Real key sets take a few KiB.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Keys beyond these are not looked at.
const MAX_KEYS: usize = 256;

/// The keys behind one URL.
#[derive(Debug)]
pub(crate) struct Jwks {
    url: Url,
    client: Client,
    rules: Rules,
    current: watch::Sender<Option<Arc<KeySet>>>,
    /// Held while a fetch is under way, so that there is one at a time.
    attempts: Arc<Mutex<Attempts>>,
}

#[derive(Debug)]
struct KeySet {
    keys: Vec<Arc<Key>>,
    fetched: Instant,
}

#[derive(Debug, Default)]
struct Attempts {
    last: Option<Instant>,
    last_for_unknown_key: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Why {
    NoKeys,
    UnknownKey,
    Stale,
}

enum Found {
    Key(Arc<Key>),
    /// There is a key of that name for something else, or no name and more than one key to choose.
    Unfit,
    Unknown,
}

/// Why a fetch brought no keys. For our log only.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer")]
    Http(#[from] reqwest::Error),
    #[error("the answer has more than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    #[error("the answer is not a JSON Web Key Set")]
    NoKeySet(#[from] serde_json::Error),
    #[error("the key set has no key that can be used")]
    NoUsableKey,
}

impl Jwks {
    pub(crate) fn new(url: &str, rules: Rules) -> Result<Self, AuthConfigError> {
        let url = check_url(url).map_err(|problem| AuthConfigError::JwksUrl { problem })?;
        let client = Client::builder()
            .timeout(FETCH_TIMEOUT)
            // Whoever may answer was named by the operator; nobody else is asked.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(AuthConfigError::HttpClient)?;
        Ok(Self { url, client, rules, current: watch::Sender::new(None), attempts: Arc::default() })
    }

    /// The key that a token says it was signed with.
    pub(crate) async fn key_for(self: &Arc<Self>, header: &Header) -> Result<Arc<Key>, AuthError> {
        let why = match self.current() {
            None => Why::NoKeys,
            Some(set) => {
                if set.fetched.elapsed() > REFRESH_AFTER {
                    // Dropping the handle leaves the task to itself.
                    drop(self.refresh(Why::Stale, self.attempts.clone().try_lock_owned().ok()));
                }
                match set.find(header) {
                    Found::Key(key) => return Ok(key),
                    Found::Unfit => return Err(AuthError::Untrusted),
                    Found::Unknown => Why::UnknownKey,
                }
            }
        };
        // Whoever waits here for a fetch that another call began may find what it brought below.
        let attempts = self.attempts.clone().lock_owned().await;
        if let Some(fetch) = self.refresh(why, Some(attempts)) {
            // It panics only if the runtime ends.
            let _ended = fetch.await;
        }
        let set = self.current().ok_or(AuthError::KeysUnavailable)?;
        match set.find(header) {
            Found::Key(key) => Ok(key),
            Found::Unfit | Found::Unknown => Err(AuthError::Untrusted),
        }
    }

    fn current(&self) -> Option<Arc<KeySet>> {
        self.current.borrow().clone()
    }

    /// Fetches, unless another call does or did so just now. In a task of its own: a caller who
    /// leaves early must not take the keys of all others along.
    fn refresh(
        self: &Arc<Self>,
        why: Why,
        attempts: Option<OwnedMutexGuard<Attempts>>,
    ) -> Option<tokio::task::JoinHandle<()>> {
        let mut attempts = attempts?;
        let (last, pause) = match why {
            Why::NoKeys if self.current.borrow().is_some() => return None,
            Why::NoKeys => (attempts.last, NO_KEYS_PAUSE),
            Why::UnknownKey => (attempts.last_for_unknown_key, UNKNOWN_KEY_PAUSE),
            Why::Stale => (attempts.last, STALE_PAUSE),
        };
        if last.is_some_and(|last| last.elapsed() < pause) {
            return None;
        }
        if matches!(why, Why::UnknownKey) {
            attempts.last_for_unknown_key = Some(Instant::now());
        }
        let this = Arc::clone(self);
        Some(tokio::spawn(async move {
            match this.fetch().await {
                Ok(keys) => {
                    tracing::info!(
                        keys = keys.len(),
                        ?why,
                        "read the keys that tokens are checked with"
                    );
                    let fetched = Instant::now();
                    this.current.send_replace(Some(Arc::new(KeySet { keys, fetched })));
                }
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    host = this.url.host_str(),
                    ?why,
                    "cannot read the keys that tokens are checked with: is JWT_JWKS_URL right?"
                ),
            }
            attempts.last = Some(Instant::now());
        }))
    }

    async fn fetch(&self) -> Result<Vec<Arc<Key>>, FetchError> {
        // The URL may hold a secret of the operator's.
        let quiet = |error: reqwest::Error| FetchError::Http(error.without_url());
        let answer = self.client.get(self.url.clone()).send().await;
        let mut answer = answer.and_then(reqwest::Response::error_for_status).map_err(quiet)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(quiet)? {
            if body.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        parse(&body, &self.rules)
    }
}

impl KeySet {
    fn find(&self, header: &Header) -> Found {
        let fits = |key: &&Arc<Key>| key.fits(header.alg);
        let Some(id) = &header.kid else {
            let mut candidates = self.keys.iter().filter(fits);
            return match (candidates.next(), candidates.next()) {
                (Some(only), None) => Found::Key(Arc::clone(only)),
                _ => Found::Unfit,
            };
        };
        let mut named = self.keys.iter().filter(|key| key.id() == Some(id)).peekable();
        if named.peek().is_none() {
            return Found::Unknown;
        }
        named.find(fits).map_or(Found::Unfit, |key| Found::Key(Arc::clone(key)))
    }
}

#[derive(Deserialize)]
struct Document {
    /// Each is read by itself: one that we cannot read must not hide the others.
    keys: Vec<Value>,
}

fn parse(body: &[u8], rules: &Rules) -> Result<Vec<Arc<Key>>, FetchError> {
    let document: Document = serde_json::from_slice(body)?;
    let keys: Vec<_> = document
        .keys
        .into_iter()
        .take(MAX_KEYS)
        .filter_map(|value| {
            let jwk: Jwk = serde_json::from_value(value).ok()?;
            Key::from_jwk(&jwk, rules).map(Arc::new)
        })
        .collect();
    if keys.is_empty() {
        return Err(FetchError::NoUsableKey);
    }
    Ok(keys)
}

/// Whoever can change the answer on its way can let anybody in: TLS, or this machine alone.
fn check_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is not a URL like https://issuer.example/jwks.json")?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        "http" => Err("must begin with https:// (http:// only for this machine)"),
        _ => Err("must begin with https://"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        for good in [
            "https://issuer.example/.well-known/jwks.json",
            "http://127.0.0.1:8080/jwks",
            "http://localhost/jwks",
            "http://[::1]:1/jwks",
        ] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://issuer.example/jwks",
            "http://127.0.0.1.example/jwks",
            "http://localhost.example/jwks",
            "http://10.0.0.1/jwks",
            "file:///etc/jwks.json",
            "issuer.example/jwks",
            "",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
