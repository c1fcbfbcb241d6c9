//! What blocks leave for their backward passes, in half the memory.

use half::bf16;
use openelm_kernels::{Threads, precision};
use openelm_model::block::{Activations, fit};

/// The input and the activations of a block, rounded to bf16; the logarithms of attention's denominators stay as they are.
#[derive(Default)]
pub(crate) struct Rounded {
    x: Vec<bf16>,
    kept: [Vec<bf16>; 8],
    log_sums: Vec<f32>,
}

impl Rounded {
    /// Keeps the block's input `x`.
    pub(crate) fn keep_input(&mut self, threads: &Threads, x: &[f32]) {
        round(threads, &mut self.x, x);
    }

    /// Keeps the block's activations.
    pub(crate) fn keep(&mut self, threads: &Threads, activations: &mut Activations) {
        for (kept, buffer) in self.kept.iter_mut().zip(buffers(activations)) {
            round(threads, kept, buffer);
        }
        self.log_sums.clone_from(&activations.log_sums);
    }

    /// Sets `x` to the input that was kept.
    pub(crate) fn input(&self, threads: &Threads, x: &mut Vec<f32>) {
        widen(threads, x, &self.x);
    }

    /// Sets `activations` to what was kept.
    pub(crate) fn activations(&self, threads: &Threads, activations: &mut Activations) {
        for (kept, buffer) in self.kept.iter().zip(buffers(activations)) {
            widen(threads, buffer, kept);
        }
        activations.log_sums.clone_from(&self.log_sums);
    }
}

fn buffers(activations: &mut Activations) -> [&mut Vec<f32>; 8] {
    let Activations { qkv, q, k, attended, log_sums: _, attn_out, mid, hidden, ffn_out } = activations;
    [qkv, q, k, attended, attn_out, mid, hidden, ffn_out]
}

fn round(threads: &Threads, kept: &mut Vec<bf16>, x: &[f32]) {
    kept.resize(x.len(), bf16::ZERO);
    precision::round(threads, kept, x);
}

fn widen(threads: &Threads, x: &mut Vec<f32>, kept: &[bf16]) {
    fit(x, kept.len());
    precision::widen(threads, x, kept);
}
