//! Linear layers in integers: quantised weights times activations that are quantised on the way.
//!
//! ```text
//! once:      blocks or groups ── packed ──> panels of 16 rows        (the same numbers and scales in another order)
//! each time: x ── activations ──> i8, a scale per 32 columns ──┬── decode: one row of x, weights streamed once
//!                                                              └── prefill: many rows, a block of panels unpacked to bytes,
//!                                                                  then tiles of 2 panels x 6 rows of x in registers
//! ```
//!
//! In all formats a weight is `scale q - zero` or `scale q + minimum`. Inner products of 32 columns are exact in 32 bits; their
//! sums over a row are taken in `f32`, in the order of the columns, on every instruction set and by both ways: results do not
//! depend on them, nor on the number of threads.

mod activations;
mod decode;
mod lanes;
mod layout;
mod packed;
mod prefill;

use std::cell::RefCell;

use self::activations::Activations;
use self::lanes::InstructionSet;
pub use self::packed::Packed;
use crate::Threads;

thread_local! {
    /// Quantised activations, kept between calls.
    static ACTIVATIONS: RefCell<Activations> = RefCell::default();
}

/// `out[n, o] (+)= sum over i of x[n, i] weight[o, i]`, with `x` rounded to 8 bits in groups of 32 columns.
pub(crate) fn product(threads: &Threads, out: &mut [f32], x: &[f32], weight: &Packed, accumulate: bool) {
    product_with(InstructionSet::best(), threads, out, x, weight, accumulate);
}

fn product_with(set: InstructionSet, threads: &Threads, out: &mut [f32], x: &[f32], weight: &Packed, accumulate: bool) {
    let rows = x.len() / weight.columns();
    assert_eq!(x.len(), rows * weight.columns(), "x is not [N, {}]", weight.columns());
    assert_eq!(out.len(), rows * weight.rows(), "out is not [{rows}, {}]", weight.rows());
    let (offset, many_registers) = set.traits();
    let offset = if weight.is_small() { 0 } else { offset };
    ACTIVATIONS.with_borrow_mut(|activations| match (rows, many_registers) {
        (1, _) => {
            activations.quantise(threads, x, weight, 1, offset);
            decode::run(set, threads, out, activations, weight, accumulate);
        }
        (_, true) => {
            activations.quantise(threads, x, weight, prefill::ROWS, offset);
            prefill::run::<{ prefill::ROWS }>(set, threads, out, activations, weight, accumulate);
        }
        (_, false) => {
            activations.quantise(threads, x, weight, prefill::FEW_ROWS, offset);
            prefill::run::<{ prefill::FEW_ROWS }>(set, threads, out, activations, weight, accumulate);
        }
    });
}

#[cfg(test)]
mod tests;
