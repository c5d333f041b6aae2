//! How hard S3 is worked. Every HTTP request to it goes through here, one try at a time:
//!
//! 1. [`limit`]: a place among the requests that may be in flight. Answers of 429 and 503 halve
//!    their number, good ones let it grow again.
//! 2. [`silence`]: the request itself. It may take as long as it takes, but not be silent.
//! 3. [`retry`]: whether and when it is sent again. A budget for all requests together keeps an
//!    outage from being multiplied.
//!
//! This is the only place that repeats a request: object_store's own retries are off, or one failure
//! would be tried four times four times. All our requests can be repeated: a PUT is conditional, and
//! whoever finds its key taken looks whether by itself (`BlobStore::put`).
//!
//! A place is held until the head of the answer is there. The rest of an answer has the pace of
//! whoever reads it: a few hundred readers who stall would lock everybody else out.

mod limit;
mod metrics;
mod retry;
mod silence;

use std::{io, sync::Arc, time::Instant};

use object_store::client::{HttpClient, HttpError, HttpRequest, HttpResponse, HttpService};
use tonic::async_trait;

use self::{limit::Limit, metrics::Metrics, retry::Retries, silence::Sender};
use crate::config::S3Limits;

/// Makes the HTTP client for S3. Nothing is sent.
pub(super) fn client(limits: &S3Limits) -> io::Result<HttpClient> {
    let limit = Limit::new(limits.s3_max_concurrency);
    Ok(HttpClient::new(Throttled {
        sender: Sender::new(limits)?,
        retries: Retries::new(limits),
        metrics: Metrics::new(&limit),
        limit,
    }))
}

#[derive(Debug)]
struct Throttled {
    sender: Sender,
    limit: Arc<Limit>,
    retries: Retries,
    metrics: Metrics,
}

#[async_trait]
impl HttpService for Throttled {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let operation = metrics::operation(&request);
        self.retries.count_request();
        let size = request.body().content_length() as u64;
        let mut repeats = 0;
        loop {
            let place = self.limit.enter().await?;
            let sent = Instant::now();
            let outcome = self.sender.send(request.clone()).await;
            match &outcome {
                Ok(answer) if retry::is_throttle(answer.status()) => place.throttled(),
                Ok(_) => place.answered(),
                // Says nothing about how much S3 can take.
                Err(_) => drop(place),
            }
            self.metrics.tried(operation, size, &outcome, sent.elapsed());
            let Some(pause) = self.retries.pause(&outcome, repeats) else { return outcome };
            repeats += 1;
            self.metrics.repeated(operation);
            if let Ok(answer) = outcome {
                silence::finish(answer).await;
            }
            tokio::time::sleep(pause).await;
        }
    }
}
