//! How hard S3 may be worked, and how long it may be silent.

use std::time::Duration;

use clap::Args;

use super::ConfigError;

/// Limits of the S3 client.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct S3Limits {
    /// Seconds that a connection to S3 may take to open.
    #[arg(long, env = "S3_CONNECT_TIMEOUT_SECS", default_value_t = 3)]
    pub s3_connect_timeout_secs: u64,
    /// Seconds without a byte in either direction after which a request to S3 is given up. There is
    /// no limit for the whole of a request: a large body takes as long as it takes.
    #[arg(long, env = "S3_SILENCE_SECS", default_value_t = 60)]
    pub s3_silence_secs: u64,
    /// Requests to S3 at once. Halved whenever S3 answers 429 or 503, and grown again by one for
    /// each round of answers.
    #[arg(long, env = "S3_MAX_CONCURRENCY", default_value_t = 128)]
    pub s3_max_concurrency: usize,
    /// Times that one request to S3 is repeated.
    #[arg(long, env = "S3_MAX_RETRIES", default_value_t = 3)]
    pub s3_max_retries: u32,
    /// Repeats, in percent of all requests of the last 10 s; one a second is always allowed. An
    /// outage is not to be multiplied.
    #[arg(long, env = "S3_RETRY_PERCENT", default_value_t = 20)]
    pub s3_retry_percent: u16,
    /// Seconds that S3 may ask us to wait before a repeat (Retry-After); where it asks for more, the
    /// request fails.
    #[arg(long, env = "S3_MAX_RETRY_WAIT_SECS", default_value_t = 10)]
    pub s3_max_retry_wait_secs: u64,
}

impl Default for S3Limits {
    fn default() -> Self {
        Self {
            s3_connect_timeout_secs: 3,
            s3_silence_secs: 60,
            s3_max_concurrency: 128,
            s3_max_retries: 3,
            s3_retry_percent: 20,
            s3_max_retry_wait_secs: 10,
        }
    }
}

impl S3Limits {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (name, value) in [
            ("S3_CONNECT_TIMEOUT_SECS", self.s3_connect_timeout_secs),
            ("S3_SILENCE_SECS", self.s3_silence_secs),
            ("S3_MAX_CONCURRENCY", self.s3_max_concurrency as u64),
        ] {
            if value == 0 {
                return Err(ConfigError::Wrong { name, why: "must be at least 1" });
            }
        }
        if self.s3_max_concurrency > 10_000 {
            let why = "must be 10000 at most";
            return Err(ConfigError::Wrong { name: "S3_MAX_CONCURRENCY", why });
        }
        if self.s3_retry_percent > 100 {
            let why = "must be between 0 and 100";
            return Err(ConfigError::Wrong { name: "S3_RETRY_PERCENT", why });
        }
        Ok(())
    }

    pub(crate) fn silence(&self) -> Duration {
        Duration::from_secs(self.s3_silence_secs)
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.s3_connect_timeout_secs)
    }

    pub(crate) fn max_retry_wait(&self) -> Duration {
        Duration::from_secs(self.s3_max_retry_wait_secs)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// What tests and benchmarks make is what the command line makes.
    #[test]
    fn the_default_is_what_clap_says() {
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            limits: S3Limits,
        }
        assert_eq!(Only::parse_from(["test"]).limits, S3Limits::default());
    }
}
