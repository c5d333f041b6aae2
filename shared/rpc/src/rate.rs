//! How many calls of one user there may be in a while: a bucket of tokens for each, filled at a
//! steady rate.

use std::{collections::HashMap, time::Duration};

use synap_types::UserId;
use tokio::time::Instant;

/// Buckets that are kept at most, 100 bytes or so each. Above, those go that are full, then any: who
/// loses one may call a burst too often, and nobody is refused for want of room.
const MAX_BUCKETS: usize = 100_000;

/// A rate, and how far a user who was quiet may exceed it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Calls a second in the long run.
    pub per_second: f64,
    /// Calls at once after a pause.
    pub burst: f64,
}

/// The buckets of all users.
#[derive(Debug)]
pub(crate) struct Buckets {
    rate: Rate,
    max: usize,
    of_user: HashMap<UserId, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Buckets {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, max: MAX_BUCKETS, of_user: HashMap::new() }
    }

    /// Takes a token of the user's, or says how long it is until there is one.
    pub(crate) fn take(&mut self, user: &UserId, now: Instant) -> Result<(), Duration> {
        let Rate { per_second, burst } = self.rate;
        if !self.of_user.contains_key(user) {
            self.make_room(now);
        }
        let full = Bucket { tokens: burst, filled: now };
        let bucket = self.of_user.entry(user.clone()).or_insert(full);
        *bucket = Bucket { tokens: bucket.at(now, self.rate), filled: now };
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / per_second));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    /// A full bucket is as good as none.
    fn make_room(&mut self, now: Instant) {
        if self.of_user.len() < self.max {
            return;
        }
        let rate = self.rate;
        self.of_user.retain(|_, bucket| bucket.at(now, rate) < rate.burst);
        // Half of them, so that the next calls need not look through all again.
        let mut surplus = self.of_user.len().saturating_sub(self.max / 2);
        self.of_user.retain(|_, _| {
            let stays = surplus == 0;
            surplus = surplus.saturating_sub(1);
            stays
        });
    }
}

impl Bucket {
    fn at(self, now: Instant, rate: Rate) -> f64 {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        passed.mul_add(rate.per_second, self.tokens).min(rate.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> UserId {
        UserId::parse(format!("user-{number}")).unwrap()
    }

    #[test]
    fn a_user_has_a_burst_and_then_a_rate_whatever_others_do() {
        let mut buckets = Buckets::new(Rate { per_second: 10.0, burst: 5.0 });
        let start = Instant::now();
        let mut taken = |number, after| {
            let now = start + Duration::from_millis(after);
            (0..100).take_while(|_| buckets.take(&user(number), now).is_ok()).count()
        };
        assert_eq!(taken(1, 0), 5);
        assert_eq!(taken(2, 0), 5);
        assert_eq!(taken(1, 99), 0);
        assert_eq!(taken(1, 101), 1);
        assert_eq!(taken(1, 301), 2);
        assert_eq!(taken(1, 60_000), 5);
        let wait = buckets.take(&user(1), start + Duration::from_mins(1)).unwrap_err();
        assert!(Duration::from_millis(99) < wait && wait < Duration::from_millis(101), "{wait:?}");
    }

    #[test]
    fn buckets_take_so_much_memory_and_no_more() {
        let mut buckets = Buckets::new(Rate { per_second: 1.0, burst: 2.0 });
        buckets.max = 100;
        let start = Instant::now();
        for number in 0..1000 {
            buckets.take(&user(number), start).unwrap();
            assert!(buckets.of_user.len() <= 100);
        }
        // The full ones go first: whoever has used up its burst is not forgotten for them.
        let later = start + Duration::from_secs(10);
        buckets.take(&user(0), later).unwrap();
        buckets.take(&user(0), later).unwrap();
        for number in 1000..1200 {
            buckets.take(&user(number), later + Duration::from_millis(number as u64)).unwrap();
        }
        assert!(buckets.of_user.len() <= 100);
    }
}
