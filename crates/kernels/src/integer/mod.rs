//! Linear layers in integers: quantised weights times activations that are quantised on the way.
//!
//! ```text
//! once:      blocks or groups ── packed ──> panels of 16 rows        (the same numbers and scales in another order)
//! each time: x ── activations ──> i8, a scale per 32 columns ──┬── decode: a few rows of x, weights streamed once
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
mod unpacked;

use std::cell::RefCell;

use self::activations::{Grouping, RoundedRows};
use self::lanes::{InstructionSet, Tile};
pub use self::packed::Packed;
use crate::{Input, Threads};

thread_local! {
    /// Quantised activations, kept between calls.
    static ACTIVATIONS: RefCell<RoundedRows> = RefCell::default();
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
    ACTIVATIONS.with_borrow_mut(|activations| {
        /// RoundedRows in tiles of `T` rows, then `run` of decoding or prefill.
        macro_rules! run {
            ($rows:literal, $paired:literal, $run:expr) => {{
                activations.quantise(threads, input, weight, Grouping { rows: $rows, paired: $paired }, offset);
                $run(set, threads, out, activations, weight, accumulate)
            }};
        }
        match (rows, tile) {
            (..=1, _) => run!(1, false, decode::run::<1>),
            // Rows that are not there cost less than a kernel for each number of them would.
            (2..=4, _) => run!(4, false, decode::run::<4>),
            (5..=16, Tile::Wide) => run!(8, false, decode::run::<8>),
            (_, Tile::Wide) => run!(6, false, prefill::run::<6>),
            (_, Tile::Narrow) => run!(3, false, prefill::run::<3>),
            (_, Tile::Paired) => run!(4, true, prefill::run::<4>),
        }
    });
}

#[cfg(test)]
mod tests;
