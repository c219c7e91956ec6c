//! A worker's line to its node: orders between tasks, and while a guest runs its input and the answers to its questions.
//!
//! Whoever waits for something reads for all, and wakes the others. Input comes as far as it was asked for
//! ([`INPUT_WINDOW`]), so that answers need not wait behind what the guest does not read.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use crate::ask::{Ask, AskId, Told};
use crate::guest_io::Reports;
use crate::order::{FromWorker, ToWorker};
use crate::wire::{Chunk, Receiver};

/// Pieces of input that are sent ahead of the guest; each holds up to 64 KiB.
pub(crate) const INPUT_WINDOW: u32 = 8;

/// What comes from the node.
pub(crate) type Orders = Receiver<pipe::Receiver, ToWorker>;

/// See the [module](self). A cheap handle.
#[derive(Clone)]
pub(crate) struct Line(Arc<Shared>);

struct Shared {
    orders: tokio::sync::Mutex<Orders>,
    reports: Reports,
    arrived: Notify,
    state: Mutex<State>,
}

/// What came and was not taken.
#[derive(Default)]
struct State {
    input: VecDeque<Bytes>,
    /// No more input comes: it ended, or the node is gone.
    has_ended: bool,
    /// Nothing comes any more.
    is_cut: bool,
    /// An answer for each question that somebody waits for.
    asked: HashMap<AskId, Option<Told>>,
    next: AskId,
}

/// A question that somebody waits for.
struct Asked<'line> {
    line: &'line Line,
    id: AskId,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.line.state().asked.remove(&self.id);
    }
}

impl Line {
    pub(crate) fn new(orders: Orders, reports: Reports) -> Self {
        let (orders, arrived) = (tokio::sync::Mutex::new(orders), Notify::new());
        Self(Arc::new(Shared { orders, reports, arrived, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next message of the node, between two tasks. `None` when the node is gone.
    pub(crate) async fn order(&self) -> Option<ToWorker> {
        *self.state() = State::default();
        self.0.orders.lock().await.next().await.ok().flatten()
    }

    /// Waits until there is input, or its end.
    pub(crate) async fn input_ready(&self) {
        self.until(|state| (!state.input.is_empty() || state.has_ended).then_some(())).await;
    }

    /// Up to `size` bytes of input that is there; `None` at its end.
    pub(crate) fn read_input(&self, size: usize) -> Option<Bytes> {
        let mut state = self.state();
        let Some(first) = state.input.front_mut() else { return (!state.has_ended).then(Bytes::new) };
        let taken = first.split_to(size.min(first.len()));
        if first.is_empty() {
            state.input.pop_front();
            drop(state);
            // A node that is gone sends no more anyway.
            let _ = self.0.reports.send(&FromWorker::Taken);
        }
        Some(taken)
    }

    /// Asks the node for something.
    pub(crate) async fn ask(&self, ask: Ask) -> Told {
        let gone = || Told::Failed("its node is gone".to_owned());
        let asked = {
            let mut state = self.state();
            let id = state.next;
            state.next = id.wrapping_add(1);
            state.asked.insert(id, None);
            Asked { line: self, id }
        };
        if self.0.reports.send(&FromWorker::Ask { id: asked.id, ask }).is_err() {
            return gone();
        }
        let told = self.until(|state| state.asked.get_mut(&asked.id).and_then(Option::take)).await;
        told.unwrap_or_else(gone)
    }

    /// Says something to which no answer is needed.
    pub(crate) fn say(&self, ask: Ask) {
        let id = {
            let mut state = self.state();
            state.next = state.next.wrapping_add(1);
            state.next
        };
        let _ = self.0.reports.send(&FromWorker::Ask { id, ask });
    }

    /// Waits for what `pick` finds; `None` if it can never come.
    async fn until<T>(&self, mut pick: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        loop {
            let arrived = self.0.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            {
                let mut state = self.state();
                if let Some(found) = pick(&mut state) {
                    return Some(found);
                }
                if state.is_cut {
                    return None;
                }
            }
            tokio::select! {
                biased;
                () = &mut arrived => {}
                mut orders = self.0.orders.lock() => {
                    let message = orders.next().await;
                    drop(orders);
                    self.dispatch(message.ok().flatten());
                }
            }
        }
    }

    fn dispatch(&self, message: Option<ToWorker>) {
        let mut state = self.state();
        match message {
            Some(ToWorker::Stdin(Chunk(bytes))) => state.input.push_back(bytes),
            Some(ToWorker::StdinEnd) => state.has_ended = true,
            Some(ToWorker::Told { id, told }) => {
                if let Some(waiting) = state.asked.get_mut(&id) {
                    *waiting = Some(told);
                }
            }
            _ => (state.has_ended, state.is_cut) = (true, true),
        }
        drop(state);
        self.0.arrived.notify_waiters();
    }
}
