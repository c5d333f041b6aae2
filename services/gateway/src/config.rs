//! What the gateway can be told, by flag or environment.

use std::{
    net::SocketAddr,
    num::{NonZeroU64, NonZeroUsize},
};

use clap::Args;
use synap_auth::{AuthArgs, Secret};
use synap_rpc::ServerArgs;

/// Configuration of the gateway.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Address to listen on for gRPC.
    #[arg(long, env = "GATEWAY_LISTEN", default_value = "127.0.0.1:50051")]
    pub listen: SocketAddr,
    /// Address to listen on for HTTP/JSON.
    #[arg(long, env = "HTTP_LISTEN", default_value = "127.0.0.1:8080")]
    pub http_listen: SocketAddr,
    /// Where content-service is.
    #[arg(long, env = "CONTENT_URL", default_value = "http://127.0.0.1:50052")]
    pub content_url: String,
    /// Where entity-service is.
    #[arg(long, env = "ENTITY_URL", default_value = "http://127.0.0.1:50053")]
    pub entity_url: String,
    /// Where event-service is.
    #[arg(long, env = "EVENT_URL", default_value = "http://127.0.0.1:50054")]
    pub event_url: String,
    /// Who signs tokens.
    #[command(flatten)]
    pub auth: AuthArgs,
    /// Secret that page tokens are signed with, of at least 32 bytes and the same for all replicas.
    /// Without it each process makes its own: its page tokens end with it.
    #[arg(long, env = "PAGE_TOKEN_SECRET", hide_env_values = true)]
    pub page_token_secret: Option<Secret>,
    /// Bytes of a note's body at most. content-service has a limit of its own.
    #[arg(long, env = "MAX_NOTE_BYTES", default_value_t = 16 * 1024 * 1024)]
    pub max_note_bytes: usize,
    /// Bytes of a file at most. One that goes straight to the store by a URL has 5 GiB at most.
    #[arg(long, env = "MAX_FILE_BYTES", default_value_t = 50 * 1024 * 1024 * 1024, value_parser = clap::value_parser!(i64).range(1..))]
    pub max_file_bytes: i64,
    /// Seconds that a URL for an upload is valid; at most five minutes less than what entity-service
    /// grants as a lease (MAX_OPERATION_LEASE_SECS).
    #[arg(long, env = "UPLOAD_URL_EXPIRY_SECS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub upload_url_expiry_secs: u64,
    /// Connections to content-service for the bodies of files.
    #[arg(long, env = "FILE_CONNECTIONS", default_value = "4")]
    pub file_connections: NonZeroUsize,
    /// Calls of one user under way at once, whoever makes them; more are answered
    /// RESOURCE_EXHAUSTED. A part of MAX_CONCURRENT_CALLS, so that nobody can take all places.
    #[arg(long, env = "MAX_CALLS_PER_USER", default_value = "64")]
    pub max_calls_per_user: NonZeroUsize,
    /// WatchEvents at once, of all users together; more are answered RESOURCE_EXHAUSTED. One connection
    /// to event-service carries them all, and takes 1,024.
    #[arg(long, env = "MAX_WATCHES", default_value_t = 512, value_parser = watches)]
    pub max_watches: usize,
    /// Calls a second that one user may make in the long run, in each gateway; more are answered
    /// RESOURCE_EXHAUSTED.
    #[arg(long, env = "CALLS_PER_SECOND_PER_USER", default_value_t = 2000.0, value_parser = rate)]
    pub calls_per_second_per_user: f64,
    /// Calls that a user may make at once after a pause, before that rate counts.
    #[arg(long, env = "CALL_BURST_PER_USER", default_value_t = 4000.0, value_parser = rate)]
    pub call_burst_per_user: f64,
    /// Bytes of all requests with a note's body that are held at one time; more are answered
    /// RESOURCE_EXHAUSTED.
    #[arg(long, env = "GATEWAY_MAX_INFLIGHT_BYTES", default_value_t = 256 * 1024 * 1024)]
    pub max_inflight_bytes: usize,
    /// Seconds that the body of an HTTP request may take to arrive.
    #[arg(long, env = "HTTP_BODY_SECS", default_value = "30")]
    pub http_body_secs: NonZeroU64,
    /// Milliseconds that a write waits for the event store before it is acknowledged with
    /// event_pending.
    #[arg(long, env = "APPEND_TIMEOUT_MS", default_value_t = 2000)]
    pub append_timeout_ms: u64,
    /// Seconds between two looks for writes that a crash has left behind.
    #[arg(long, env = "RECOVERY_INTERVAL_SECS", default_value_t = 5.0)]
    pub recovery_interval_secs: f64,
    /// Seconds that this grows to while nothing is found.
    #[arg(long, env = "RECOVERY_MAX_INTERVAL_SECS", default_value_t = 30.0)]
    pub recovery_max_interval_secs: f64,
    /// The gRPC server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What one connection has room for.
fn watches(text: &str) -> Result<usize, String> {
    let value = text.parse().ok().filter(|value| (1..=1000).contains(value));
    value.ok_or_else(|| "expected a number from 1 to 1000".to_owned())
}

/// A number of calls: one at least, or nobody could call at all.
fn rate(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value| (1.0..=1e9).contains(value));
    value.ok_or_else(|| "expected a number from 1 to 1000000000".to_owned())
}
