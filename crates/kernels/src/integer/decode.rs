//! A few rows of activations: the weights are streamed once, in order, so that memory is the limit. A panel is read after the
//! other, and fetched ahead: several side by side, without, came to less.

use super::activations::{Record, RoundedRows};
use super::lanes::{InstructionSet, IntegerKernel, IntegerLanes, LANES, Tile};
use super::layout::{Numbers, QUADS, Scales};
use super::packed::{LayoutKernel, Packed, read};
use crate::Threads;
use crate::cache_line::CacheLine;
use crate::threads::Chunks;

/// Bytes of weights in a task.
const TASK_BYTES: usize = 64 << 10;
/// Bytes that weights are fetched ahead.
const AHEAD: usize = 2048;
/// Most rows of activations that are decoded where tiles are not [`Tile::Wide`].
const MOST_ROWS: usize = 4;

/// `out[n, o] (+)= x[n] . weight[o]` with activations in tiles of `T` rows.
pub(super) fn run<const T: usize>(
    set: InstructionSet,
    threads: &Threads,
    out: &mut [f32],
    x: &RoundedRows,
    weight: &Packed,
    accumulate: bool,
) {
    let out = Chunks::new(out, 1);
    let panels = weight.rows().div_ceil(LANES);
    let task_panels = TASK_BYTES.div_ceil(weight.panel_bytes());
    threads.run(panels.div_ceil(task_panels), |task| {
        let panels = task * task_panels..panels.min((task + 1) * task_panels);
        set.run(Decode::<T> { out: &out, panels, x, weight, accumulate });
    });
}

/// Some panels with all rows of activations.
struct Decode<'a, const T: usize> {
    out: &'a Chunks<f32>,
    panels: std::ops::Range<usize>,
    x: &'a RoundedRows,
    weight: &'a Packed,
    accumulate: bool,
}

impl<const T: usize> IntegerKernel for Decode<'_, T> {
    #[inline(always)]
    unsafe fn run<L: IntegerLanes>(self) {
        if const { T > MOST_ROWS && !matches!(L::TILE, Tile::Wide) } {
            unreachable!("{T} rows take a prefill with this instruction set");
        }
        // SAFETY: the instruction set is that of `L`.
        unsafe { read::<L, _>(self.weight, self) }
    }
}

impl<const T: usize> LayoutKernel for Decode<'_, T> {
    #[inline(always)]
    unsafe fn run<L: IntegerLanes, N: Numbers, S: Scales>(self, scales: S) {
        // SAFETY: the instruction set is that of `L`, and `read` chose the types by the matrix.
        unsafe {
            match S::PARTS {
                1 => self.panels::<L, N, S, 1>(scales),
                _ => self.panels::<L, N, S, 2>(scales),
            }
        }
    }
}

impl<const T: usize> Decode<'_, T> {
    /// # Safety
    /// The instruction set is that of `L`; the other types are the matrix's, `PARTS` is `S::PARTS`.
    #[inline(always)]
    unsafe fn panels<L: IntegerLanes, N: Numbers, S: Scales, const PARTS: usize>(self, scales: S) {
        let outputs = self.weight.rows();
        for panel in self.panels.clone() {
            let (first, count) = (panel * LANES, LANES.min(outputs - panel * LANES));
            for tile in 0..self.x.rows().div_ceil(T) {
                // SAFETY: as the caller says.
                let sums =
                    unsafe { products::<L, N, S, T, PARTS>(self.weight.panel(panel), self.x.tile(tile), scales) };
                for (row, sums) in (tile * T..self.x.rows()).zip(sums) {
                    // SAFETY: a task alone writes its columns of `out`; the instruction set is that of `L`.
                    unsafe { write::<L>(self.out.slice(row * outputs + first, count), sums, self.accumulate) };
                }
            }
        }
    }
}

/// The inner products of the rows of a panel with a tile of activations.
///
/// # Safety
/// As of [`Decode::panels`].
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "an index runs over several arrays of registers")]
unsafe fn products<L: IntegerLanes, N: Numbers, S: Scales, const T: usize, const PARTS: usize>(
    panel: &[u8],
    records: &[i32],
    scales: S,
) -> [L::Floats; T] {
    let block_bytes = scales.header() + S::STEPS * N::BYTES;
    let words = Record::<T, PARTS>::WORDS;
    assert!(panel.len() / block_bytes * S::STEPS * words <= records.len(), "records too short");
    // SAFETY: pointers stay within a block and its records.
    unsafe {
        let mut sums = [L::splat(0.0); T];
        for (block, header) in panel.chunks_exact(block_bytes).enumerate() {
            let header = header.as_ptr();
            for line in (0..scales.header()).step_by(CacheLine::BYTES) {
                L::prefetch(header.wrapping_add(AHEAD + line));
            }
            for step in 0..S::STEPS {
                let record = records.as_ptr().add((block * S::STEPS + step) * words);
                let corrections = record.add(Record::<T, PARTS>::CORRECTIONS);
                let factors = record.add(Record::<T, PARTS>::SCALES).cast::<f32>();
                let totals = record.add(Record::<T, PARTS>::SUMS).cast::<f32>();
                let numbers = header.add(scales.header() + step * N::BYTES);
                for line in (0..N::BYTES).step_by(CacheLine::BYTES) {
                    L::prefetch(numbers.wrapping_add(AHEAD + line));
                }
                let numbers = N::load::<L>(numbers);
                for part in 0..PARTS {
                    let mut products = [L::splat_integer(0); T];
                    for t in 0..T {
                        products[t] = L::splat_integer(corrections.add(t * PARTS + part).read());
                    }
                    for quad in part * QUADS / PARTS..(part + 1) * QUADS / PARTS {
                        for t in 0..T {
                            let (w, a) = (numbers[quad], L::splat_quad(record.add(t * QUADS + quad).cast()));
                            products[t] = if N::SMALL {
                                L::dot::<true>(products[t], w, a)
                            } else {
                                L::dot::<false>(products[t], w, a)
                            };
                        }
                    }
                    let scale = scales.scale::<L>(header, step, part);
                    for t in 0..T {
                        let scale = L::mul(scale, L::splat(factors.add(t).read()));
                        sums[t] = L::mul_add(L::to_floats(products[t]), scale, sums[t]);
                    }
                }
                if S::MINIMA {
                    let minimum = scales.minimum::<L>(header, step);
                    for t in 0..T {
                        sums[t] = L::mul_add(minimum, L::splat(totals.add(t).read()), sums[t]);
                    }
                }
            }
        }
        sums
    }
}

/// Puts up to sixteen sums in their places.
///
/// # Safety
/// The instruction set is that of `L`.
#[inline(always)]
pub(super) unsafe fn write<L: IntegerLanes>(out: &mut [f32], sums: L::Floats, accumulate: bool) {
    // SAFETY: sixteen floats are read and written, in `out` or in `row`.
    unsafe {
        if out.len() == LANES {
            let sums = if accumulate { L::add(L::load(out.as_ptr()), sums) } else { sums };
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
