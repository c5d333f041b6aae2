//! The alert: a line of the log, and a webhook, when it begins and when it ends.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Client, Url, redirect::Policy};
use serde_json::json;

use super::tick::Tick;

/// A webhook may take so long.
const LIMIT: Duration = Duration::from_secs(5);
/// How often it is tried in one interval, and the pause before the second time.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// Who is told.
pub(super) struct Alerts {
    client: Client,
    webhook: Option<Url>,
    /// What was told last: that there is an alert, or that there is none.
    told: bool,
}

impl Alerts {
    pub(super) fn new(webhook: Option<String>) -> anyhow::Result<Self> {
        let parse = |url: String| {
            let parsed = Url::parse(&url).ok();
            let parsed = parsed.filter(|url| matches!(url.scheme(), "http" | "https"));
            parsed.with_context(|| format!("--webhook {url} is not a URL of http or https"))
        };
        Ok(Self {
            client: Client::builder().timeout(LIMIT).redirect(Policy::none()).build()?,
            webhook: webhook.map(parse).transpose()?,
            told: false,
        })
    }

    /// Tells of a change. Where the webhook does not answer, the next interval tries again.
    pub(super) async fn tell(&mut self, tick: &Tick) {
        if tick.alert {
            tracing::error!(sync_rate = tick.sync_rate, "the sync rate may be below the limit");
        }
        if tick.alert == self.told {
            return;
        }
        let Some(webhook) = &self.webhook else {
            self.told = tick.alert;
            return;
        };
        match self.post(webhook, tick).await {
            Ok(()) => self.told = tick.alert,
            Err(error) => {
                // Without the URL: it may be a secret.
                let reason = error.without_url().to_string();
                tracing::error!(reason, "the webhook was not told");
            }
        }
    }

    async fn post(&self, webhook: &Url, tick: &Tick) -> reqwest::Result<()> {
        let message = json!({
            "source": "synapctl monitor",
            "state": if tick.alert { "alerting" } else { "resolved" },
            "tick": tick,
        });
        let mut tries = 0;
        loop {
            let sent = self.client.post(webhook.clone()).json(&message).send().await;
            tries += 1;
            match sent.and_then(reqwest::Response::error_for_status) {
                Ok(_) => return Ok(()),
                Err(error) if tries == TRIES => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE * tries).await,
            }
        }
    }
}
