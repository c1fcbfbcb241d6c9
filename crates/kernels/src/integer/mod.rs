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

use self::activations::{Activations, Grouping};
use self::lanes::{InstructionSet, Tile};
pub use self::packed::Packed;
use crate::{Input, Threads};

thread_local! {
    /// Quantised activations, kept between calls.
    static ACTIVATIONS: RefCell<Activations> = RefCell::default();
}

/// `out[n, o] (+)= sum over i of x[n, i] weight[o, i]` of an input `x` that is rounded to 8 bits in groups of 32 columns.
pub(crate) fn product(threads: &Threads, out: &mut [f32], input: Input<'_>, weight: &Packed, accumulate: bool) {
    product_with(InstructionSet::best(), threads, out, input, weight, accumulate);
}

fn product_with(
    set: InstructionSet,
    threads: &Threads,
    out: &mut [f32],
    input: Input<'_>,
    weight: &Packed,
    accumulate: bool,
) {
    let (rows, inputs) = input.shape();
    assert_eq!(inputs, weight.columns(), "x is not [N, {}]", weight.columns());
    assert_eq!(out.len(), rows * weight.rows(), "out is not [{rows}, {}]", weight.rows());
    let (offset, tile) = set.traits();
    let offset = if weight.is_small() { 0 } else { offset };
    ACTIVATIONS.with_borrow_mut(|activations| match (rows, tile) {
        (1, _) => {
            activations.quantise(threads, input, weight, Grouping { rows: 1, paired: false }, offset);
            decode::run(set, threads, out, activations, weight, accumulate);
        }
        (_, Tile::Wide) => {
            activations.quantise(threads, input, weight, Grouping { rows: 6, paired: false }, offset);
            prefill::run::<6>(set, threads, out, activations, weight, accumulate);
        }
        (_, Tile::Narrow) => {
            activations.quantise(threads, input, weight, Grouping { rows: 3, paired: false }, offset);
            prefill::run::<3>(set, threads, out, activations, weight, accumulate);
        }
        (_, Tile::Paired) => {
            activations.quantise(threads, input, weight, Grouping { rows: 4, paired: true }, offset);
            prefill::run::<4>(set, threads, out, activations, weight, accumulate);
        }
    });
}

#[cfg(test)]
mod tests;
