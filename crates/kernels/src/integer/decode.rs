//! One row of activations: the weights are streamed once, in order, so that memory is the limit.

use super::activations::{Activations, Record};
use super::lanes::{InstructionSet, IntegerLanes, Job, LANES};
use super::layout::{Numbers, QUADS, Scales};
use super::packed::{Packed, Reader, read};
use crate::Threads;

/// Bytes of weights in a task.
const TASK_BYTES: usize = 64 << 10;
/// Panels read side by side: a processor fetches ahead in several streams at once, and one does not use up the memory's speed.
const STREAMS: usize = 4;

/// `out[o] (+)= x . weight[o]`.
pub(super) fn run(
    set: InstructionSet,
    threads: &Threads,
    out: &mut [f32],
    x: &Activations,
    weight: &Packed,
    accumulate: bool,
) {
    let panels = TASK_BYTES.div_ceil(weight.panel_bytes()).next_multiple_of(STREAMS);
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
    unsafe fn run<L: IntegerLanes>(self) {
        // SAFETY: the instruction set is that of `L`.
        unsafe { read::<L, _>(self.weight, self) }
    }
}

impl Reader for Decode<'_> {
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

impl Decode<'_> {
    /// # Safety
    /// The instruction set is that of `L`; the other types are the matrix's, `PARTS` is `S::PARTS`.
    #[inline(always)]
    unsafe fn panels<L: IntegerLanes, N: Numbers, S: Scales, const PARTS: usize>(self, scales: S) {
        let panels = self.out.len().div_ceil(LANES);
        for panel in (0..panels).step_by(STREAMS) {
            // SAFETY: as the caller says.
            unsafe {
                let sums = self.products::<L, N, S, PARTS>(panel, panels - 1, scales);
                for (out, sums) in self.out[panel * LANES..].chunks_mut(LANES).zip(sums) {
                    write::<L>(out, sums, self.accumulate);
                }
            }
        }
    }

    /// The inner products of the rows of the panels from `panel` on with the row of activations; in the place of panels behind
    /// the `last` one it stands again.
    ///
    /// # Safety
    /// As of [`Decode::panels`].
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "an index runs over several arrays of registers")]
    unsafe fn products<L: IntegerLanes, N: Numbers, S: Scales, const PARTS: usize>(
        &self,
        panel: usize,
        last: usize,
        scales: S,
    ) -> [L::Floats; STREAMS] {
        let block_bytes = scales.header() + S::STEPS * N::BYTES;
        let words = Record::<1, PARTS>::WORDS;
        let panels: [&[u8]; STREAMS] =
            std::array::from_fn(|p| self.weight.panel(self.first_panel + last.min(panel + p)));
        let records = self.x.tile(0);
        assert!(panels[0].len() / block_bytes * S::STEPS * words <= records.len(), "records too short");
        // SAFETY: pointers stay within a block, of which each panel has as many, and its records.
        unsafe {
            let mut sums = [L::splat(0.0); STREAMS];
            for block in 0..panels[0].len() / block_bytes {
                for step in 0..S::STEPS {
                    let record = records.as_ptr().add((block * S::STEPS + step) * words);
                    let factor = L::splat(record.add(Record::<1, PARTS>::SCALES).cast::<f32>().read());
                    for p in 0..STREAMS {
                        let header = panels[p].as_ptr().add(block * block_bytes);
                        let numbers = N::load::<L>(header.add(scales.header() + step * N::BYTES));
                        for part in 0..PARTS {
                            let correction = record.add(Record::<1, PARTS>::CORRECTIONS + part).read();
                            let mut products = L::splat_integer(correction);
                            for quad in part * QUADS / PARTS..(part + 1) * QUADS / PARTS {
                                let (w, a) = (numbers[quad], L::splat_quad(record.add(quad).cast()));
                                products = if N::SMALL {
                                    L::dot::<true>(products, w, a)
                                } else {
                                    L::dot::<false>(products, w, a)
                                };
                            }
                            let scale = L::mul(scales.scale::<L>(header, step, part), factor);
                            sums[p] = L::mul_add(L::to_floats(products), scale, sums[p]);
                        }
                        if S::MINIMA {
                            let sum = L::splat(record.add(Record::<1, PARTS>::SUMS).cast::<f32>().read());
                            sums[p] = L::mul_add(scales.minimum::<L>(header, step), sum, sums[p]);
                        }
                    }
                }
            }
            sums
        }
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
