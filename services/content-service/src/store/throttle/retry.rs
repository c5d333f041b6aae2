//! Whether and when a request is sent again.

use std::{fmt, time::Duration};

use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use object_store::client::{HttpError, HttpErrorKind, HttpResponse};
use synap_types::{Clock as _, SystemClock};
use tower::retry::budget::{Budget as _, TpsBudget};

use crate::config::S3Limits;

/// Pause before the first repeat; each next is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a request counts towards the repeats that are allowed.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);
/// Repeats a second that are always allowed: where there are few requests, they are few as well.
const LEAST_PER_SECOND: u32 = 1;

/// Decides over repeats.
pub(super) struct Retries {
    budget: TpsBudget,
    max: u32,
    longest_wait: Duration,
}

impl Retries {
    pub(super) fn new(limits: &S3Limits) -> Self {
        let share = f32::from(limits.s3_retry_percent) / 100.0;
        Self {
            budget: TpsBudget::new(BUDGET_WINDOW, LEAST_PER_SECOND, share),
            max: limits.s3_max_retries,
            longest_wait: limits.max_retry_wait(),
        }
    }

    /// Each request pays for a part of a repeat.
    pub(super) fn count_request(&self) {
        self.budget.deposit();
    }

    /// How long to wait before the next try of a request that was repeated so often; `None` if this
    /// is how it ends.
    pub(super) fn pause(
        &self,
        outcome: &Result<HttpResponse, HttpError>,
        repeats: u32,
    ) -> Option<Duration> {
        if repeats >= self.max || !may_pass(outcome) {
            return None;
        }
        let asked = match outcome {
            Ok(answer) => retry_after(answer.headers(), SystemClock.now()).unwrap_or_default(),
            Err(_) => Duration::ZERO,
        };
        // To come back earlier than told is worse than not to come back.
        if asked > self.longest_wait || !self.budget.withdraw() {
            return None;
        }
        // Half of the pause by chance: those who failed together must not come back together.
        let longest = FIRST_PAUSE.saturating_mul(1 << repeats.min(10)).min(LONGEST_PAUSE);
        Some(asked + longest.mul_f64(0.5 + fastrand::f64() / 2.0))
    }
}

impl fmt::Debug for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Retries")
    }
}

/// Whether S3 asked for less.
pub(super) fn is_throttle(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// Whether the next try may end otherwise.
fn may_pass(outcome: &Result<HttpResponse, HttpError>) -> bool {
    match outcome {
        Ok(answer) => {
            let status = answer.status();
            is_throttle(status)
                || matches!(
                    status,
                    StatusCode::INTERNAL_SERVER_ERROR
                        | StatusCode::BAD_GATEWAY
                        | StatusCode::GATEWAY_TIMEOUT
                        | StatusCode::REQUEST_TIMEOUT
                )
        }
        Err(error) => !matches!(error.kind(), HttpErrorKind::Decode | HttpErrorKind::Unknown),
    }
}

/// `Retry-After` (RFC 9110): seconds, or a date.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    Some((date.to_utc() - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;
    use object_store::client::HttpResponseBody;

    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> HttpResponse {
        let mut answer = Response::builder().status(status);
        if let Some(text) = retry_after {
            answer = answer.header(RETRY_AFTER, text);
        }
        answer.body(HttpResponseBody::from(Bytes::new())).unwrap()
    }

    #[tokio::test]
    async fn only_what_may_pass_is_repeated_and_not_before_it_is_welcome() {
        let retries = Retries::new(&S3Limits::default());
        for status in [200, 304, 400, 403, 404, 409, 412, 416, 501] {
            assert_eq!(retries.pause(&Ok(answer(status, None)), 0), None, "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504] {
            let pause = retries.pause(&Ok(answer(status, None)), 0).unwrap();
            assert!(pause >= FIRST_PAUSE / 2 && pause <= FIRST_PAUSE, "{status}: {pause:?}");
        }
        assert_eq!(retries.pause(&Ok(answer(503, None)), 3), None);
        let asked = retries.pause(&Ok(answer(503, Some("2"))), 0).unwrap();
        assert!(asked > Duration::from_secs(2) && asked < Duration::from_secs(3));
        assert_eq!(retries.pause(&Ok(answer(503, Some("60"))), 0), None);
    }

    #[tokio::test]
    async fn an_outage_is_not_multiplied() {
        let retries = Retries::new(&S3Limits::default());
        let mut repeats = 0;
        for _ in 0..1000 {
            retries.count_request();
            repeats += u32::from(retries.pause(&Ok(answer(500, None)), 0).is_some());
        }
        // 20 of 100, and one a second for 10 s.
        assert!((200..=210).contains(&repeats), "{repeats}");
    }

    #[test]
    fn a_date_is_a_wait_too() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap());
        let now = DateTime::parse_from_rfc3339("2015-10-21T07:27:55Z").unwrap().to_utc();
        assert_eq!(retry_after(&headers, now), Some(Duration::from_secs(5)));
        let later = DateTime::parse_from_rfc3339("2015-10-21T08:00:00Z").unwrap().to_utc();
        assert_eq!(retry_after(&headers, later), Some(Duration::ZERO));
        headers.insert(RETRY_AFTER, "soon".parse().unwrap());
        assert_eq!(retry_after(&headers, now), None);
    }
}
