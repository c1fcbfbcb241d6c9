//! One row of activations: the weights are streamed once, in order, so that memory is the limit.

use super::activations::{Activations, Record};
use super::lanes::{InstructionSet, Job, LANES, Lanes};
use super::layout::{Numbers, QUADS, Scales};
use super::packed::{Packed, Reader, read};
use crate::Threads;

/// Bytes of weights in a task.
const TASK_BYTES: usize = 64 << 10;

/// `out[o] (+)= x . weight[o]`.
pub(super) fn run(
    set: InstructionSet,
    threads: &Threads,
    out: &mut [f32],
    x: &Activations,
    weight: &Packed,
    accumulate: bool,
) {
    let panels = TASK_BYTES.div_ceil(weight.panel_bytes());
    threads.for_each_chunk(out, panels * LANES, |task, out| {
        set.run(Decode { out, first_panel: task * panels, x, weight, accumulate });
    });
}

/// The panels from `first_panel` on that fill `out`.
struct Decode<'a> {
    out: &'a mut [f32],
    first_panel: usize,
    x: &'a Activations,
    weight: &'a Packed,
    accumulate: bool,
}

impl Job for Decode<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the instruction set is that of `L`.
        unsafe { read::<L, _>(self.weight, self) }
    }
}

impl Reader for Decode<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes, N: Numbers, S: Scales>(self, scales: S) {
        let Self { out, first_panel, x, weight, accumulate } = self;
        for (i, out) in out.chunks_mut(LANES).enumerate() {
            // SAFETY: the instruction set is that of `L`, and `read` chose the types by the matrix.
            let mut sums = unsafe { panel::<L, N, S>(weight.panel(first_panel + i), x.tile(0), scales) };
            // SAFETY: sixteen floats are read and written, in `out` or in `row`.
            unsafe {
                if out.len() == LANES {
                    if accumulate {
                        sums = L::add(L::load(out.as_ptr()), sums);
                    }
                    L::store(out.as_mut_ptr(), sums);
                } else {
                    let mut row = [0.0; LANES];
                    L::store(row.as_mut_ptr(), sums);
                    for (out, x) in out.iter_mut().zip(row) {
                        *out = if accumulate { *out + x } else { x };
                    }
                }
            }
        }
    }
}

/// The inner products of the sixteen rows of `panel` with the row of activations in `records`.
///
/// # Safety
/// The instruction set is that of `L`; `N` and `S` are the panel's.
#[inline(always)]
unsafe fn panel<L: Lanes, N: Numbers, S: Scales>(panel: &[u8], records: &[i32], scales: S) -> L::Floats {
    match S::PARTS {
        // SAFETY: as the caller says.
        1 => unsafe { panel_of_parts::<L, N, S, 1>(panel, records, scales) },
        // SAFETY: as the caller says.
        _ => unsafe { panel_of_parts::<L, N, S, 2>(panel, records, scales) },
    }
}

/// # Safety
/// As of [`panel`]; `PARTS` is `S::PARTS`.
#[inline(always)]
unsafe fn panel_of_parts<L: Lanes, N: Numbers, S: Scales, const PARTS: usize>(
    panel: &[u8],
    records: &[i32],
    scales: S,
) -> L::Floats {
    let block_bytes = scales.header() + S::STEPS * N::BYTES;
    let words = Record::<1, PARTS>::WORDS;
    let blocks = panel.chunks_exact(block_bytes).zip(records.chunks_exact(S::STEPS * words));
    // SAFETY: pointers stay within the block and its records.
    unsafe {
        let mut sums = L::splat(0.0);
        for (block, records) in blocks {
            let header = block.as_ptr();
            for step in 0..S::STEPS {
                let record = records.as_ptr().add(step * words);
                let scale = L::splat(record.add(Record::<1, PARTS>::SCALES).cast::<f32>().read());
                let numbers = N::load::<L>(header.add(scales.header() + step * N::BYTES));
                for part in 0..PARTS {
                    let correction = record.add(Record::<1, PARTS>::CORRECTIONS + part).read();
                    let mut products = L::splat_integer(correction);
                    for quad in part * QUADS / PARTS..(part + 1) * QUADS / PARTS {
                        let (w, a) = (numbers[quad], L::splat_quad(record.add(quad).cast()));
                        products =
                            if N::SMALL { L::dot::<true>(products, w, a) } else { L::dot::<false>(products, w, a) };
                    }
                    let scale = L::mul(scales.scale::<L>(header, step, part), scale);
                    sums = L::mul_add(L::to_floats(products), scale, sums);
                }
                if S::MINIMA {
                    let sum = L::splat(record.add(Record::<1, PARTS>::SUMS).cast::<f32>().read());
                    sums = L::mul_add(scales.minimum::<L>(header, step), sum, sums);
                }
            }
        }
        sums
    }
}
