//! Waiting for conditions, never for time.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take. On a machine with nothing else to do all of it takes seconds; this is for
/// machines with much else to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks. Most conditions start a process to look, which takes about as long.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Waits until there is something, and gives it.
///
/// # Panics
/// If there is nothing within [`PATIENCE`].
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited for {PATIENCE:?}, and still not: {what}");
        thread::sleep(PAUSE);
    }
}
