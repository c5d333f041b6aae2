//! Ports for servers that a test starts, kills, and starts again at the same place.

use std::{
    fs::File,
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the range from which the system takes ports for outgoing connections: while a killed
/// server's port is free, nobody else gets it.
const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

/// A port that no other test on this machine gets while this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Locked: that is what keeps other processes away, and what ends with this one.
    _claim: File,
}

impl Port {
    /// Claims a free port.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn claim() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let claims = std::env::temp_dir().join("synap-test-ports");
        std::fs::create_dir_all(&claims)
            .unwrap_or_else(|error| panic!("{}: {error}", claims.display()));
        // Processes start looking at different places.
        let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or_default();
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + start.wrapping_add(step) % COUNT;
            let claim = File::create(claims.join(number.to_string()));
            if let Ok(claim) = claim
                && claim.try_lock().is_ok()
                && TcpListener::bind(("127.0.0.1", number)).is_ok()
            {
                return Self { number, _claim: claim };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}
