//! The engine that codes, with a memory for what all stripes of a segment have in common.
//!
//! Before it decodes, the code evaluates a polynomial that only depends on which shards are missing. That takes as long
//! as decoding a stripe.

use std::cell::RefCell;

use reed_solomon_simd::engine::{DefaultEngine, Engine, GF_ORDER, GfElement, ShardsRefMut};

thread_local! {
    /// The loss that was evaluated last by this thread, and what came of it.
    static LAST: RefCell<Option<(Vec<GfElement>, Vec<GfElement>)>> = const { RefCell::new(None) };
}

/// The fastest engine for this processor.
pub(super) struct Remembering(DefaultEngine);

/// Frees what is remembered: 256 KiB a thread.
pub(super) fn forget() {
    LAST.with_borrow_mut(|last| *last = None);
}

impl Remembering {
    pub(super) fn new() -> Self {
        Self(DefaultEngine::new())
    }
}

impl Engine for Remembering {
    fn fft(&self, data: &mut ShardsRefMut, pos: usize, size: usize, truncated_size: usize, skew: usize) {
        self.0.fft(data, pos, size, truncated_size, skew);
    }

    fn ifft(&self, data: &mut ShardsRefMut, pos: usize, size: usize, truncated_size: usize, skew: usize) {
        self.0.ifft(data, pos, size, truncated_size, skew);
    }

    fn mul(&self, shard: &mut [[u8; 64]], by: GfElement) {
        self.0.mul(shard, by);
    }

    fn eval_poly(erasures: &mut [GfElement; GF_ORDER], truncated_size: usize) {
        LAST.with_borrow_mut(|last| match last {
            Some((asked, evaluated)) if asked == erasures => erasures.copy_from_slice(evaluated),
            _ => {
                let asked = erasures.to_vec();
                DefaultEngine::eval_poly(erasures, truncated_size);
                *last = Some((asked, erasures.to_vec()));
            }
        });
    }
}
