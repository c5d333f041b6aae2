//! Repeats calls that are safe to repeat.

use std::{future::Future, time::Duration};

use tonic::Code;

use crate::{RpcError, deadline};

/// Tries in all. A service that restarts is back within seconds or not at all; recovery, not a
/// retry, is what waits longer.
const TRIES: u32 = 4;

/// Calls until it succeeds, fails for good, or the deadline is near. Only `UNAVAILABLE` is
/// repeated, after 20, 80 and 320 ms. The call must be idempotent: a lost reply is repeated too.
///
/// # Errors
/// The last error of the call.
pub async fn retry<T, F>(mut call: impl FnMut() -> F) -> Result<T, RpcError>
where
    F: Future<Output = Result<T, RpcError>>,
{
    let mut pause = Duration::from_millis(20);
    for _ in 1..TRIES {
        match call().await {
            Err(error) if error.code == Code::Unavailable => {
                if deadline::remaining().is_some_and(|left| left < pause * 2) {
                    return Err(error);
                }
                tokio::time::sleep(pause).await;
                pause *= 4;
            }
            outcome => return outcome,
        }
    }
    call().await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn error(code: Code) -> RpcError {
        RpcError::new(code, "TEST", "test")
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_pass_is_repeated() {
        for (code, calls) in [(Code::Unavailable, TRIES), (Code::Aborted, 1)] {
            let count = Cell::new(0);
            let outcome: Result<(), _> = retry(|| {
                count.set(count.get() + 1);
                async { Err(error(code)) }
            })
            .await;
            assert_eq!((outcome.unwrap_err().code, count.get()), (code, calls));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_retry_outlives_the_deadline() {
        let count = Cell::new(0);
        let outcome = deadline::within(Duration::from_millis(100), async {
            retry(|| {
                count.set(count.get() + 1);
                async { Err::<(), _>(error(Code::Unavailable)) }
            })
            .await
        })
        .await;
        // The answer is the call's own reason, not the deadline's.
        assert_eq!(outcome.unwrap().unwrap_err().code, Code::Unavailable);
        assert_eq!(count.get(), 2);
    }
}
