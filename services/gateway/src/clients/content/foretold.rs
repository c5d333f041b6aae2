//! What a put is going to answer, and how soon: as the one before.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use synap_proto::content::BuildKeyRequest;

use super::ContentClient;

/// A store that takes longer is not waited for: the other services wait for 100 ms.
const SOON: Duration = Duration::from_millis(50);

/// The last put.
#[derive(Clone, Default)]
pub(super) struct LastPut(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// What comes before a key in its public name; empty where there are no such names.
    prefix: Option<String>,
    was_slow: bool,
}

impl LastPut {
    /// Nearly always it is as it was.
    pub(super) fn learn(&self, key: &str, url: &str, took: Duration) {
        let mut seen = self.lock();
        seen.was_slow = took > SOON;
        let prefix = url.strip_suffix(key).unwrap_or_default();
        if seen.prefix.as_deref() != Some(prefix) {
            seen.prefix = Some(prefix.to_owned());
        }
    }

    fn url(&self, key: &str) -> Option<String> {
        let seen = self.lock();
        let prefix = seen.prefix.as_deref()?;
        Some(if prefix.is_empty() { String::new() } else { format!("{prefix}{key}") })
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ContentClient {
    /// Whether the end of a body is soon answered, as far as we know.
    pub(crate) fn is_quick(&self) -> bool {
        !self.last_put.lock().was_slow
    }

    /// The public name, or nothing, that a put is going to answer; `None` if that is not known.
    pub(crate) async fn foretell_url(&self, key: &str) -> Option<String> {
        if let Some(url) = self.last_put.url(key) {
            return Some(url);
        }
        let any = BuildKeyRequest {
            user_id: "any".to_owned(),
            entity_type: "note".to_owned(),
            entity_id: "any".to_owned(),
            extension: "md".to_owned(),
        };
        let any = self.stub.clone().build_key(any).await.ok()?.into_inner();
        self.last_put.learn(&any.key, &any.url, Duration::ZERO);
        self.last_put.url(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_url_is_as_the_last_one() {
        let last = LastPut::default();
        assert_eq!(last.url("a/b.md"), None);
        for (url, next) in [("", ""), ("https://x.org/a/1.md", "https://x.org/b/2.md")] {
            last.learn("a/1.md", url, Duration::ZERO);
            assert_eq!(last.url("b/2.md").as_deref(), Some(next));
        }
    }
}
