//! How many PUTs at once. What a store can take is found out by asking for more: as long as latency
//! holds, or more comes through, two more are let in; where it says no, or takes much longer than it
//! has to, half of them.

use std::{
    pin::pin,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Uploads at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Concurrency {
    Auto,
    Fixed(usize),
}

impl FromStr for Concurrency {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let number = text.parse().ok().filter(|number| (1..=512).contains(number));
        number.map(Self::Fixed).ok_or("expected auto, or 1 to 512")
    }
}

/// Where `auto` begins, and how far it goes.
const FIRST: usize = 8;
const MOST: usize = 128;
/// How many more at a time.
const STEP: usize = 2;
/// Latency holds up to so many times the best.
const HOLDS: u32 = 2;
/// Much longer than it has to: so many times the best.
const TOO_LONG: u32 = 12;
/// How much more must come through to be worth it.
const WORTH: f64 = 1.02;

/// Lets PUTs in.
#[derive(Debug)]
pub(crate) struct Governor {
    auto: bool,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    limit: usize,
    running: usize,
    window: Window,
    /// The mean latency of the best window.
    best: Option<Duration>,
    /// PUTs a second in a window, a little forgotten with each.
    most: f64,
}

/// What came through since the limit was last thought about.
#[derive(Debug)]
struct Window {
    begun: Instant,
    count: u32,
    latency: Duration,
}

/// A place among the PUTs.
pub(crate) struct Place<'a> {
    governor: &'a Governor,
    begun: Instant,
}

impl Window {
    fn new() -> Self {
        Self { begun: Instant::now(), count: 0, latency: Duration::ZERO }
    }
}

impl Governor {
    pub(crate) fn new(concurrency: Concurrency) -> Self {
        let (auto, limit) = match concurrency {
            Concurrency::Auto => (true, FIRST),
            Concurrency::Fixed(limit) => (false, limit),
        };
        let state = State { limit, running: 0, window: Window::new(), best: None, most: 0.0 };
        Self { auto, state: Mutex::new(state), freed: Notify::new() }
    }

    /// How many there are ever let in at once.
    pub(crate) fn most(&self) -> usize {
        if self.auto { MOST } else { self.state().limit }
    }

    /// Waits for a place.
    pub(crate) async fn enter(&self) -> Place<'_> {
        loop {
            let mut freed = pin!(self.freed.notified());
            // From here on nothing is missed.
            freed.as_mut().enable();
            {
                let mut state = self.state();
                if state.running < state.limit {
                    state.running += 1;
                    return Place { governor: self, begun: Instant::now() };
                }
            }
            freed.await;
        }
    }

    /// The store, or what is before it, has said no.
    pub(crate) fn throttled(&self) {
        let mut state = self.state();
        // Once for all that were let in under the same limit.
        if self.auto && state.window.begun.elapsed() > state.best.unwrap_or_default() {
            let half = (state.limit / 2).max(1);
            state.set(half);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set(&mut self, limit: usize) {
        self.limit = limit;
        self.window = Window::new();
    }

    fn answered(&mut self, latency: Duration) {
        self.window.count += 1;
        self.window.latency += latency;
        // Everybody has been through twice.
        if (self.window.count as usize) < (2 * self.limit).max(FIRST) {
            return;
        }
        let mean = self.window.latency / self.window.count;
        let rate =
            f64::from(self.window.count) / self.window.begun.elapsed().as_secs_f64().max(1e-6);
        let best = self.best.map_or(mean, |best| best.min(mean));
        let worth_it = mean <= best * HOLDS || rate > self.most * WORTH;
        let limit = match mean > best * TOO_LONG {
            false if worth_it => (self.limit + STEP).min(MOST),
            false => self.limit,
            true => (self.limit / 2).max(1),
        };
        self.best = Some(best);
        self.most = rate.max(self.most * 0.99);
        self.set(limit);
    }
}

impl Place<'_> {
    /// The PUT is through.
    pub(crate) fn answered(self) {
        if self.governor.auto {
            self.governor.state().answered(self.begun.elapsed());
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.governor.state().running -= 1;
        // The limit may have grown, too.
        self.governor.freed.notify_waiters();
    }
}
