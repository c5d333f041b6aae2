//! Named places where a test build can be told to die or to stop.
//!
//! `SYNAP_FAILPOINT=<place>=<action>` arms one place of a process; `kill` ends the process as
//! `kill -9` would, `pause` creates the file named by `SYNAP_FAILPOINT_MARK` and waits until it is
//! gone, so that a test can kill somebody else at that moment. Without the feature `enabled`,
//! which only test builds have, [`hit`] is empty and the variables mean nothing.

/// A process passes the place called `place`.
///
/// Places are named `<step>.<moment>`: `begin.before`, `begin.effect`, `begin.after`.
#[cfg(not(feature = "enabled"))]
#[inline]
#[expect(clippy::unused_async, reason = "the test build waits here")]
pub async fn hit(_place: &str) {}

/// A process passes the place called `place`.
///
/// Places are named `<step>.<moment>`: `begin.before`, `begin.effect`, `begin.after`.
#[cfg(feature = "enabled")]
pub async fn hit(place: &str) {
    let Ok(armed) = std::env::var("SYNAP_FAILPOINT") else {
        return;
    };
    match armed.split_once('=') {
        Some((name, "kill")) if name == place => kill(),
        Some((name, "pause")) if name == place => {
            let Ok(mark) = std::env::var("SYNAP_FAILPOINT_MARK") else { return };
            // Only the first who passes: a file that was there and is gone stays gone.
            if std::fs::File::create_new(format!("{mark}.used")).is_err() {
                return;
            }
            let _ = std::fs::write(&mark, place);
            while std::fs::exists(&mark).unwrap_or(false) {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        }
        _ => {}
    }
}

/// Ends this process as `kill -9` would: no destructor, no flush, no goodbye on a socket.
#[cfg(feature = "enabled")]
fn kill() -> ! {
    use rustix::process::{Signal, getpid, kill_process};
    // Not by a child: a fork would hold our listening sockets until it is another program.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}
