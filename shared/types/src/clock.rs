//! Time and randomness are passed in: `clippy.toml` forbids reaching for them elsewhere.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Tells the time. Never used for leases or event times: those follow the database's clock, the
/// only one that all replicas share.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> DateTime<Utc>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// Makes ids.
pub trait IdGenerator: Send + Sync + 'static {
    /// A new `UUIDv7` (RFC 9562): unique, and near its neighbours in time on an index page.
    fn next_id(&self) -> Uuid;
}

/// Ids from the machine's clock and randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdGenerator for SystemIds {
    #[expect(clippy::disallowed_methods, reason = "the one place that makes ids")]
    fn next_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}
