//! The second thread of a worker: moves the epoch on while a guest runs, and ends the process when its parent
//! is gone or when a guest made it take more memory than it may.
//!
//! The sandbox counts what a guest has; what the host keeps on a guest's behalf (lists of directories, for
//! one) has bounds of its own, but they multiply. So the whole process is watched: it is the guest's alone.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use wasmtime::Engine;

use crate::guest_io::Reports;
use crate::order::FromWorker;
use crate::sandbox::TICK;

/// What the process may take beyond the memory that its guest may have: wasmtime lets a single call of a guest
/// take up to 128 MiB for its arguments, and as much for what it gives back.
const HOST_BYTES: u64 = 256 << 20;

/// Sleeps while no guest runs: an idle worker costs nothing and notices the end of its parent by the end of its
/// input.
pub(crate) struct Clock {
    shared: Arc<Shared>,
    thread: Thread,
}

struct Shared {
    resident: Option<Resident>,
    /// While a guest runs: how much the whole process may take, in bytes. Held while the process is ended for
    /// it, so that a guest that is through is not blamed.
    allowed: Mutex<Option<u64>>,
}

impl Shared {
    fn allowed(&self) -> MutexGuard<'_, Option<u64>> {
        self.allowed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resident(&self) -> u64 {
        self.resident.as_ref().and_then(Resident::bytes).unwrap_or(0)
    }
}

/// While this is there, the clock runs.
pub(crate) struct Running<'clock>(&'clock Clock);

impl Clock {
    /// Starts the thread, and returns when it has done all that needs system calls which a jail may not have.
    pub(crate) fn start(
        engine: Engine,
        resident: Option<Resident>,
        reports: Reports,
        parent: u32,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { resident, allowed: Mutex::new(None) });
        let watched = Arc::clone(&shared);
        let (up, is_up) = std::sync::mpsc::sync_channel(1);
        let watch = move || {
            let _ = up.send(());
            tick(&engine, &watched, &reports, parent);
        };
        let thread = std::thread::Builder::new().name("clock".into()).spawn(watch)?;
        is_up.recv().map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    /// Watches a guest that may have `memory_bytes`.
    pub(crate) fn run(&self, memory_bytes: u64) -> Running<'_> {
        let allowed = self.shared.resident().saturating_add(memory_bytes).saturating_add(HOST_BYTES);
        *self.shared.allowed() = Some(allowed);
        self.thread.unpark();
        Running(self)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.shared.allowed() = None;
    }
}

fn tick(engine: &Engine, shared: &Shared, reports: &Reports, parent: u32) {
    loop {
        if shared.allowed().is_none() {
            std::thread::park();
            continue;
        }
        std::thread::sleep(TICK);
        engine.increment_epoch();
        reports.nudge();
        if std::os::unix::process::parent_id() != parent {
            end_process();
        }
        let resident = shared.resident();
        let allowed = shared.allowed();
        if allowed.is_some_and(|allowed| resident > allowed) {
            // Whether anybody hears it or not, the process has to go.
            let _ = reports.send(&FromWorker::Overdrawn);
            end_process();
        }
    }
}

#[expect(clippy::exit, reason = "the guest may never return")]
fn end_process() -> ! {
    std::process::exit(1)
}

/// How much memory this process has, asked of the kernel.
pub(crate) struct Resident {
    statm: File,
    page_bytes: u64,
}

impl Resident {
    /// Opens the kernel's file before a jail closes it off; `None` where there is no such thing.
    pub(crate) fn open() -> Option<Self> {
        let statm = File::open("/proc/self/statm").ok()?;
        Some(Self { statm, page_bytes: rustix::param::page_size() as u64 })
    }

    fn bytes(&self) -> Option<u64> {
        let mut buffer = [0; 128];
        let length = self.statm.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(buffer.get(..length)?).ok()?;
        let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
        Some(pages * self.page_bytes)
    }
}
