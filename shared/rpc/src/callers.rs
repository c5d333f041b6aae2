//! Who calls, how many calls of each there may be at once, and how many in a while.

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
use tokio::time::Instant;
use tonic::Code;

use crate::{
    RpcError,
    rate::{Buckets, Rate},
};

type Named = Pin<Box<dyn Future<Output = Result<UserId, RpcError>> + Send>>;
type Authenticate = Box<dyn Fn(Option<String>) -> Named + Send + Sync>;

/// Knows callers by their `authorization` header, and counts the calls of each. Cheap to clone; all
/// clones count together, so that two servers of one process can share the limits.
#[derive(Clone)]
pub struct Callers {
    shared: Arc<Shared>,
}

struct Shared {
    authenticate: Authenticate,
    limits: CallerLimits,
    buckets: Mutex<Buckets>,
    /// Users with calls under way, and how many.
    calls: Mutex<HashMap<UserId, usize>>,
}

/// What one user may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CallerLimits {
    /// Calls under way at once: bounds what a user holds.
    pub at_once: usize,
    /// Calls in a while: bounds what a user does.
    pub rate: Rate,
}

impl Callers {
    /// `authenticate` names the user whom the value of an `authorization` header stands for.
    pub fn new<F>(
        limits: CallerLimits,
        authenticate: impl Fn(Option<String>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<UserId, RpcError>> + Send + 'static,
    {
        let authenticate: Authenticate = Box::new(move |header| Box::pin(authenticate(header)));
        let buckets = Mutex::new(Buckets::new(limits.rate));
        let calls = Mutex::default();
        Self { shared: Arc::new(Shared { authenticate, limits, buckets, calls }) }
    }

    /// Names the caller, and counts its call until the answer is dropped.
    ///
    /// # Errors
    /// What `authenticate` said, or `RESOURCE_EXHAUSTED` if the user has too many calls under way or
    /// calls too often.
    pub async fn admit(&self, headers: &HeaderMap) -> Result<Admitted, RpcError> {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let user = (self.shared.authenticate)(header.map(str::to_owned)).await?;
        let CallerLimits { at_once, rate } = self.shared.limits;
        let mut calls = self.shared.lock();
        let count = calls.get(&user).copied().unwrap_or_default();
        if count >= at_once {
            return Err(too_many(at_once));
        }
        let mut buckets = self.shared.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(&user, Instant::now()).map_err(|wait| too_often(rate, wait))?;
        drop(buckets);
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

fn too_often(rate: Rate, wait: Duration) -> RpcError {
    let per_second = rate.per_second;
    RpcError::new(
        Code::ResourceExhausted,
        reason::RATE_LIMITED,
        format!("more calls of this user than {per_second} a second; try again a little later"),
    )
    .with("per_second", per_second.to_string())
    .retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callers(max_calls: usize) -> Callers {
        let rate = Rate { per_second: 1.0, burst: 4.0 };
        Callers::new(CallerLimits { at_once: max_calls, rate }, |header| async move {
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
        // The calls that were let in, and no others, count for the rate.
        assert!(callers.admit(&of("ada")).await.is_ok());
        let refused = callers.admit(&of("ada")).await.err().unwrap();
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::ResourceExhausted, "RATE_LIMITED")
        );
        assert!(refused.retry_after.is_some_and(|wait| wait <= Duration::from_secs(1)));
        assert!(callers.admit(&of("eve")).await.is_ok());
        // Who has no call under way costs nothing.
        assert_eq!(callers.shared.lock().len(), 1);
        assert_eq!(
            callers.admit(&HeaderMap::new()).await.err().unwrap().code,
            Code::Unauthenticated
        );
    }
}
