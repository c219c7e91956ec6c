//! What a guest may use of memory, tables and stack, and what an error out of a guest means.

use wasmtime::{ResourceLimiter, Trap};
use wasmtime_wasi::I32Exit;

use crate::guest_io::OutputSpent;
use crate::order::Order;
use crate::task::{Limit, Outcome};

/// Elements of all tables of a guest: ten times what large C++ programs have.
pub(super) const MAX_TABLE_ELEMENTS: usize = 200_000;
/// The guest's call stack. (C and Rust keep large values in linear memory, so this is deep recursion already.)
pub(super) const STACK_BYTES: usize = 1 << 20;

/// Memory and tables of one guest, all of its instances together. A growth beyond them ends it, so that the
/// error can name the limit: to merely refuse would turn into whatever the program does when `malloc` fails.
#[derive(Debug)]
pub(super) struct Bounds {
    max_memory: usize,
    memory: usize,
    elements: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("memory limit reached")]
struct MemorySpent;

#[derive(Debug, thiserror::Error)]
#[error("table limit reached")]
struct TableSpent;

impl Bounds {
    pub(super) fn new(memory_bytes: u64) -> Self {
        let max_memory = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
        Self { max_memory, memory: 0, elements: 0 }
    }

    /// The most memory that it had, in bytes: memories never shrink.
    pub(super) fn peak(&self) -> u64 {
        self.memory as u64
    }
}

impl ResourceLimiter for Bounds {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        if total > self.max_memory {
            return Err(MemorySpent.into());
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.elements.saturating_add(desired.saturating_sub(current));
        // First: what the engine has room for is no maximum of the program's own.
        if total > MAX_TABLE_ELEMENTS {
            return Err(TableSpent.into());
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.elements = total;
        Ok(true)
    }
}

/// What an error out of a guest means.
pub(super) fn explain(error: &wasmtime::Error, order: &Order) -> Outcome {
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return Outcome::Exited(*code);
    }
    let reached = |limit, value| Outcome::LimitReached { limit, value };
    if error.is::<MemorySpent>() {
        return reached(Limit::Memory, order.memory_bytes);
    }
    if error.is::<TableSpent>() {
        return reached(Limit::Table, MAX_TABLE_ELEMENTS as u64);
    }
    if error.is::<OutputSpent>() {
        return reached(Limit::Output, order.output_bytes);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt | Trap::OutOfFuel) => reached(Limit::Time, order.timeout_ms),
        Some(Trap::StackOverflow) => reached(Limit::Stack, STACK_BYTES as u64),
        Some(trap) => {
            Outcome::Trapped { message: trap.to_string().trim_start_matches("wasm trap: ").to_owned() }
        }
        // What surrounds the cause are positions in the compiled program.
        None => Outcome::Failed { reason: error.root_cause().to_string() },
    }
}
