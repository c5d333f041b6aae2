//! Who calls, and how many calls of each there may be at once.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, header};
use synap_proto::reason;
use synap_types::UserId;
use tonic::Code;

use crate::RpcError;

type Named = Pin<Box<dyn Future<Output = Result<UserId, RpcError>> + Send>>;
type Authenticate = Box<dyn Fn(Option<String>) -> Named + Send + Sync>;

/// Knows callers by their `authorization` header, and counts the calls of each. Cheap to clone; all
/// clones count together, so that two servers of one process can share the limit.
#[derive(Clone)]
pub struct Callers {
    shared: Arc<Shared>,
}

struct Shared {
    authenticate: Authenticate,
    max_calls: usize,
    /// Users with calls under way, and how many.
    calls: Mutex<HashMap<UserId, usize>>,
}

impl Callers {
    /// `authenticate` names the user whom the value of an `authorization` header stands for; each
    /// may have `max_calls` calls under way.
    pub fn new<F>(
        max_calls: usize,
        authenticate: impl Fn(Option<String>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<UserId, RpcError>> + Send + 'static,
    {
        let authenticate: Authenticate = Box::new(move |header| Box::pin(authenticate(header)));
        Self { shared: Arc::new(Shared { authenticate, max_calls, calls: Mutex::default() }) }
    }

    /// Names the caller, and counts its call until the answer is dropped.
    ///
    /// # Errors
    /// What `authenticate` said, or `RESOURCE_EXHAUSTED` if the user has too many calls under way.
    pub async fn admit(&self, headers: &HeaderMap) -> Result<Admitted, RpcError> {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let user = (self.shared.authenticate)(header.map(str::to_owned)).await?;
        let mut calls = self.shared.lock();
        let count = calls.get(&user).copied().unwrap_or_default();
        if count >= self.shared.max_calls {
            return Err(too_many(self.shared.max_calls));
        }
        calls.insert(user.clone(), count + 1);
        drop(calls);
        Ok(Admitted { user, shared: Arc::clone(&self.shared) })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, usize>> {
        // Nothing in here leaves the counts half changed.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call of a user, counted until this is dropped.
pub struct Admitted {
    user: UserId,
    shared: Arc<Shared>,
}

impl Admitted {
    /// Whose call it is.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut calls = self.shared.lock();
        if let Some(count) = calls.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                calls.remove(&self.user);
            }
        }
    }
}

fn too_many(limit: usize) -> RpcError {
    RpcError::new(
        Code::ResourceExhausted,
        reason::OVERLOADED,
        format!("{limit} calls of this user are under way already; wait for one to end"),
    )
    .with("limit", limit.to_string())
    .retry_after(Duration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callers(max_calls: usize) -> Callers {
        Callers::new(max_calls, |header| async move {
            UserId::parse(header.unwrap_or_default())
                .map_err(|_| RpcError::new(Code::Unauthenticated, "TEST", "nobody"))
        })
    }

    fn of(user: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, user.parse().unwrap())])
    }

    #[tokio::test]
    async fn a_user_has_a_number_of_calls_whatever_others_do() {
        let callers = callers(2);
        let one = callers.admit(&of("ada")).await.unwrap_or_else(|why| panic!("{why}"));
        let _two = callers.clone().admit(&of("ada")).await.unwrap_or_else(|why| panic!("{why}"));
        let refused = callers.admit(&of("ada")).await.err().unwrap();
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::ResourceExhausted, "OVERLOADED")
        );
        assert!(refused.retry_after.is_some());
        assert!(callers.admit(&of("eve")).await.is_ok());
        drop(one);
        assert!(callers.admit(&of("ada")).await.is_ok());
        // Who has no call under way costs nothing.
        assert_eq!(callers.shared.lock().len(), 1);
        assert_eq!(
            callers.admit(&HeaderMap::new()).await.err().unwrap().code,
            Code::Unauthenticated
        );
    }
}
