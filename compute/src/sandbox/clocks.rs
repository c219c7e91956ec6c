//! How guests wait for clocks, and for clocks only: in a way that the rest of the worker does not notice.
//!
//! Wasmtime's own preview 1 puts the worker's only thread to sleep, so that nobody is there to see that the time of the guest is over; and it knows
//! the machine's time only, when a deterministic run has a time of its own ([`StillClock`]). So [`poll_oneoff`] sleeps on
//! the runtime's clock, or lets that time pass, and then leaves what is due to wasmtime. Components get [`Clocks`] for the same.

use std::time::Duration;

use wasmtime::component::{self, HasData, Resource};
use wasmtime::{AsContextMut, Caller, Extern, Linker, Trap};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as preview1, WasiSnapshotPreview1};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wiggle::GuestMemory;

use super::{Guest, MAX_HANDLES};
use crate::profile::{EPOCH, StillClock};

/// Where preview 1 keeps what in a subscription: <https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md#subscription>
const SUBSCRIPTION: usize = 48;
const KIND: usize = 8;
const CLOCK: usize = 16;
const TIMEOUT: usize = 24;
const FLAGS: usize = 40;
/// The kind that waits for a clock.
const IS_CLOCK: u8 = 0;
/// The clock that tells the date.
const REALTIME: u32 = 0;
/// The flag of a timeout that is a moment, and no span.
const ABSOLUTE: u16 = 1;
/// Success, and an argument that makes no sense.
const EINVAL: i32 = 28;

/// In a deterministic run, a timer that waits beside other things gives them so much real time at the most.
const COURTESY: Duration = Duration::from_millis(100);

/// Puts `poll_oneoff` in the place of wasmtime's.
pub(super) fn shadow_preview1(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        "wasi_snapshot_preview1",
        "poll_oneoff",
        |caller: Caller<'_, Guest>, arguments: (i32, i32, i32, i32)| Box::new(poll_oneoff(caller, arguments)),
    )?;
    Ok(())
}

async fn poll_oneoff(
    mut caller: Caller<'_, Guest>,
    (subscriptions, events, count, found): (i32, i32, i32, i32),
) -> wasmtime::Result<i32> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(wasmtime::Error::msg("missing required memory export"));
    };
    let Ok(number) = usize::try_from(count) else { return Ok(EINVAL) };
    if number > MAX_HANDLES {
        return Ok(EINVAL);
    }
    let fuel = caller.as_context_mut().hostcall_fuel();
    let (bytes, guest) = memory.data_and_store_mut(&mut caller);
    let at = usize::try_from(subscriptions.cast_unsigned()).unwrap_or(usize::MAX);
    let timers = Timers::find(bytes, at, number);
    let waits = match &guest.still {
        Some(still) => {
            timers.pass(bytes, still, timers.0.len() == number);
            if guest.has_overslept() {
                return Err(Trap::Interrupt.into());
            }
            true
        }
        None => timers.wait_for_the_only(bytes, number).await,
    };
    guest.wasi.set_hostcall_fuel(fuel);
    let mut memory = GuestMemory::Unshared(bytes);
    let polled =
        preview1::poll_oneoff(&mut guest.wasi, &mut memory, subscriptions, events, count, found).await;
    if waits && let GuestMemory::Unshared(bytes) = memory {
        timers.restore(bytes);
    }
    polled
}

/// Subscriptions to clocks: where they lie in the guest's memory, and what is said there.
struct Timers(Vec<(usize, [u8; SUBSCRIPTION])>);

impl Timers {
    /// Those among so many subscriptions.
    fn find(bytes: &[u8], at: usize, number: usize) -> Self {
        let places = (0..number).map_while(|index| at.checked_add(index * SUBSCRIPTION));
        let subscriptions =
            places.map_while(|at| Some((at, *bytes.get(at..)?.first_chunk::<SUBSCRIPTION>()?)));
        Self(subscriptions.filter(|(_, subscription)| subscription[KIND] == IS_CLOCK).collect())
    }

    /// Sleeps, if a span of time is all that the guest waits for; then it is over. Says whether it did.
    async fn wait_for_the_only(&self, bytes: &mut [u8], number: usize) -> bool {
        let ([(at, subscription)], 1) = (&self.0[..], number) else { return false };
        if is_absolute(subscription) {
            return false;
        }
        tokio::time::sleep(Duration::from_nanos(timeout(subscription))).await;
        wait_for(bytes, *at, 0);
        true
    }

    /// Lets the time of a deterministic run pass until the first of them is due, if nothing else is waited for. Where it is,
    /// that always comes before any of them.
    fn pass(&self, bytes: &mut [u8], still: &StillClock, nothing_else: bool) {
        let now = still.glance();
        let spans: Vec<_> = self.0.iter().map(|(_, subscription)| span(subscription, now)).collect();
        let first = spans.iter().min().copied().unwrap_or_default();
        if nothing_else {
            still.sleep(first);
        }
        for ((at, _), span) in self.0.iter().zip(spans) {
            wait_for(bytes, *at, if nothing_else && span == first { 0 } else { u64::MAX });
        }
    }

    /// What the guest wrote is as it was.
    fn restore(&self, bytes: &mut [u8]) {
        for (at, subscription) in &self.0 {
            write(bytes, *at, subscription);
        }
    }
}

fn timeout(subscription: &[u8; SUBSCRIPTION]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| subscription[TIMEOUT + index]))
}

fn is_absolute(subscription: &[u8; SUBSCRIPTION]) -> bool {
    u16::from_le_bytes([subscription[FLAGS], subscription[FLAGS + 1]]) & ABSOLUTE != 0
}

/// In how many nanoseconds it is due.
fn span(subscription: &[u8; SUBSCRIPTION], now: u64) -> u64 {
    if !is_absolute(subscription) {
        return timeout(subscription);
    }
    let clock = u32::from_le_bytes(std::array::from_fn(|index| subscription[CLOCK + index]));
    let began = if clock == REALTIME { EPOCH } else { Duration::ZERO };
    let since = Duration::from_nanos(timeout(subscription)).saturating_sub(began + Duration::from_nanos(now));
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Makes a subscription wait for so many nanoseconds.
fn wait_for(bytes: &mut [u8], at: usize, nanoseconds: u64) {
    write(bytes, at + TIMEOUT, &nanoseconds.to_le_bytes());
    write(bytes, at + FLAGS, &[0; 2]);
}

fn write(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(what.len())) {
        place.copy_from_slice(what);
    }
}

/// The clock of components that they wait for.
pub(super) struct Clocks<'a>(&'a mut Guest);

struct HasClocks;

impl HasData for HasClocks {
    type Data<'a> = Clocks<'a>;
}

/// Puts [`Clocks`] in the place of wasmtime's.
pub(super) fn shadow_components(linker: &mut component::Linker<Guest>) -> wasmtime::Result<()> {
    monotonic_clock::add_to_linker::<Guest, HasClocks>(linker, |guest| Clocks(guest))
}

impl Clocks<'_> {
    fn subscribe(&mut self, still: StillClock, at: u64) -> wasmtime::Result<Resource<DynPollable>> {
        if self.0.has_overslept() {
            return Err(Trap::Interrupt.into());
        }
        let table = self.0.wasi.ctx().table;
        let timer = table.push(Timer { still, at })?;
        subscribe(table, timer)
    }
}

impl monotonic_clock::Host for Clocks<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        monotonic_clock::Host::now(&mut self.0.wasi.clocks())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        monotonic_clock::Host::resolution(&mut self.0.wasi.clocks())
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        match self.0.still.clone() {
            Some(still) => self.subscribe(still, when),
            None => monotonic_clock::Host::subscribe_instant(&mut self.0.wasi.clocks(), when),
        }
    }

    fn subscribe_duration(&mut self, span: u64) -> wasmtime::Result<Resource<DynPollable>> {
        match self.0.still.clone() {
            Some(still) => {
                let at = still.glance().saturating_add(span);
                self.subscribe(still, at)
            }
            None => monotonic_clock::Host::subscribe_duration(&mut self.0.wasi.clocks(), span),
        }
    }
}

/// What a component waits for in a deterministic run. What else it waits for at the same time may come first, as input that is there.
struct Timer {
    still: StillClock,
    at: u64,
}

impl Timer {
    fn left(&self) -> Duration {
        Duration::from_nanos(self.at.saturating_sub(self.still.glance()))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        let left = self.left();
        if left.is_zero() {
            return tokio::task::yield_now().await;
        }
        // The shorter the sooner, and none is later than the courtesy: s / (1 + s) of it.
        let seconds = left.as_secs_f64();
        tokio::time::sleep(COURTESY.mul_f64(seconds / (1.0 + seconds))).await;
        self.still.sleep(self.at.saturating_sub(self.still.glance()));
    }
}
