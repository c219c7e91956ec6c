//! The two ways in which programs are compiled and run.
//!
//! The usual one is fast and true to its machine. The deterministic one gives a program the same on every machine, so
//! that nodes can be held against each other:
//!
//! | what differs between machines | in the deterministic profile |
//! |---|---|
//! | the bits of a float that is not a number | canonical |
//! | the time | stands at [`EPOCH`]; it moves by a [`BLINK`] whenever it is asked for, and by as much as the program sleeps |
//! | random numbers | follow from the arguments and the environment |
//! | how far a program gets until its time is over | counted in steps of the program (wasmtime's fuel), [`STEPS_PER_MS`] for each millisecond; what it sleeps, by the clock that it sees |
//!
//! Whoever is too slow for that many steps has not found anything out: see [`patience`].

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use blake3::OutputReader;
use rand_core::TryRng;
use serde::{Deserialize, Serialize};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

/// What clocks begin with: the first moment of the year 2000, in time since the Unix epoch.
pub(crate) const EPOCH: Duration = Duration::from_secs(946_684_800);
/// How far clocks move when they are read, so that a program that waits for them comes to an end.
pub(crate) const BLINK: Duration = Duration::from_millis(1);
/// Steps that stand for a millisecond: about as many as a core takes in one.
pub(crate) const STEPS_PER_MS: u64 = 1_000_000;

/// What random numbers are derived with. WIRE: other numbers need another string.
const DICE_CONTEXT: &str = "starfish deterministic random numbers 1";
/// How many times its time limit a program may take where its steps are what is counted.
const SLOWNESS: u32 = 10;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Profile {
    /// As fast as it goes.
    #[default]
    Usual,
    /// The same everywhere.
    Deterministic,
}

impl Profile {
    /// How many there are.
    pub(crate) const COUNT: usize = 2;

    /// How long a program with this time limit may take on this machine.
    pub(crate) fn patience(self, timeout: Duration) -> Duration {
        match self {
            Self::Usual => timeout,
            Self::Deterministic => timeout.saturating_mul(SLOWNESS),
        }
    }
}

/// A clock that shows the same to every run of a program: its time passes only by what the program does.
#[derive(Clone, Debug, Default)]
pub(crate) struct StillClock(Arc<Passed>);

/// In nanoseconds.
#[derive(Debug, Default)]
struct Passed {
    in_all: AtomicU64,
    asleep: AtomicU64,
}

impl StillClock {
    /// How much has passed until now, in nanoseconds.
    fn read(&self) -> u64 {
        pass(&self.0.in_all, nanoseconds(BLINK))
    }

    /// The same, without being noticed.
    pub(crate) fn glance(&self) -> u64 {
        self.0.in_all.load(Ordering::Relaxed)
    }

    /// The program has slept for so many nanoseconds.
    pub(crate) fn sleep(&self, nanoseconds: u64) {
        pass(&self.0.in_all, nanoseconds);
        pass(&self.0.asleep, nanoseconds);
    }

    /// How long the program has slept.
    pub(crate) fn slept(&self) -> Duration {
        Duration::from_nanos(self.0.asleep.load(Ordering::Relaxed))
    }
}

/// Adds to a time, up to the end of time; returns what it was.
fn pass(time: &AtomicU64, nanoseconds: u64) -> u64 {
    let added = |before: u64| Some(before.saturating_add(nanoseconds));
    time.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added).unwrap_or_else(|before| before)
}

impl HostWallClock for StillClock {
    fn resolution(&self) -> Duration {
        BLINK
    }

    fn now(&self) -> Duration {
        EPOCH + Duration::from_nanos(self.read())
    }
}

impl HostMonotonicClock for StillClock {
    fn resolution(&self) -> u64 {
        nanoseconds(BLINK)
    }

    fn now(&self) -> u64 {
        self.read()
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Random numbers that follow from what a program is started with (BLAKE3 in its mode without an end).
pub(crate) struct Dice(OutputReader);

impl Dice {
    /// The same for the same arguments and environment.
    pub(crate) fn new(args: &[String], env: &[(String, String)]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(DICE_CONTEXT);
        let pairs = env.iter().flat_map(|(name, value)| [name, value]);
        for text in args.iter().chain(pairs) {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        Self(hasher.finalize_xof())
    }

    /// The next 128 bits.
    pub(crate) fn seed(&mut self) -> u128 {
        let mut bytes = [0; 16];
        self.0.fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}
