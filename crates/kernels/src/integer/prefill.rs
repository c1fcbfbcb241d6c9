//! Many rows of activations: a matrix product over tiles of weight rows and rows of activations that are held in registers.
//!
//! A task takes two panels of weights and a block of activations. It unpacks the panels to a byte per number and a float per
//! scale once, which costs little beside their use, and then runs over the tiles of activations: the inner loop knows no format.

use std::cell::RefCell;

use bytemuck::Zeroable;

use super::activations::{Record, RoundedRows};
use super::decode::write;
use super::lanes::{InstructionSet, IntegerKernel, IntegerLanes, LANES, Tile};
use super::layout::{Numbers, QUAD_BYTES, QUADS, Scales};
use super::packed::{LayoutKernel, Packed, read};
use crate::Threads;
use crate::cache_line::CacheLine;
use crate::threads::Chunks;

/// Panels of a task.
const PANELS: usize = 2;
/// Most rows of activations in a task: enough that unpacking the weights does not show.
const TASK_ROWS: usize = 192;

/// Unpacked panels.
#[derive(Default)]
struct Unpacked {
    /// `[panels][steps][quads]` of 64 bytes, each on a cache line of its own.
    numbers: Vec<CacheLine>,
    /// `[panels][steps * parts][16]`.
    scales: Vec<f32>,
    /// `[panels][steps][16]`.
    minima: Vec<f32>,
}

thread_local! {
    static UNPACKED: RefCell<Unpacked> = RefCell::default();
}

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
    let blocks = x.rows().div_ceil(TASK_ROWS).max(1);
    let block_rows = x.rows().div_ceil(blocks).next_multiple_of(T);
    threads.run(panels.div_ceil(PANELS) * blocks, |task| {
        let first_panel = task / blocks * PANELS;
        let panels = PANELS.min(panels - first_panel);
        let first_row = x.rows().min(task % blocks * block_rows);
        let rows = first_row..x.rows().min(first_row + block_rows);
        UNPACKED.with_borrow_mut(|unpacked| {
            let steps = weight.steps();
            unpacked.numbers.resize(PANELS * steps * QUADS, CacheLine::zeroed());
            unpacked.scales.resize(PANELS * steps * weight.parts() * LANES, 0.0);
            unpacked.minima.resize(PANELS * steps * LANES, 0.0);
            set.run(Unpack { weight, panels: first_panel..first_panel + panels, unpacked });
            set.run(Tiles::<T> { out: &out, x, weight, unpacked, first_panel, panels, rows, accumulate });
        });
    });
}

struct Unpack<'a> {
    weight: &'a Packed,
    panels: std::ops::Range<usize>,
    unpacked: &'a mut Unpacked,
}

impl IntegerKernel for Unpack<'_> {
    #[inline(always)]
    unsafe fn run<L: IntegerLanes>(self) {
        // SAFETY: the instruction set is that of `L`.
        unsafe { read::<L, _>(self.weight, self) }
    }
}

impl LayoutKernel for Unpack<'_> {
    #[inline(always)]
    unsafe fn run<L: IntegerLanes, N: Numbers, S: Scales>(self, scales: S) {
        let Self { weight, panels, unpacked } = self;
        let steps = weight.steps();
        let block_bytes = scales.header() + S::STEPS * N::BYTES;
        let numbers = unpacked.numbers.chunks_exact_mut(steps * QUADS);
        let floats = unpacked.scales.chunks_exact_mut(steps * S::PARTS * LANES);
        let targets = numbers.zip(floats).zip(unpacked.minima.chunks_exact_mut(steps * LANES));
        for (panel, ((numbers, floats), minima)) in panels.zip(targets) {
            let numbers = numbers.chunks_exact_mut(S::STEPS * QUADS);
            let floats = floats.chunks_exact_mut(S::STEPS * S::PARTS * LANES);
            let minima = minima.chunks_exact_mut(S::STEPS * LANES);
            let blocks = weight.panel(panel).chunks_exact(block_bytes);
            for (((block, numbers), floats), minima) in blocks.zip(numbers).zip(floats).zip(minima) {
                for step in 0..S::STEPS {
                    let header = block.as_ptr();
                    // SAFETY: sources lie within the block; a step has `QUADS` lines, `PARTS` vectors of scales and one of
                    // minima in the targets.
                    unsafe {
                        let quads = L::interleave(N::load::<L>(header.add(scales.header() + step * N::BYTES)));
                        for (quad, line) in quads.into_iter().zip(&mut numbers[step * QUADS..][..QUADS]) {
                            L::store_bytes(bytemuck::bytes_of_mut(line).as_mut_ptr(), quad);
                        }
                        for part in 0..S::PARTS {
                            let target = &mut floats[(step * S::PARTS + part) * LANES..][..LANES];
                            L::store(target.as_mut_ptr(), scales.scale::<L>(header, step, part));
                        }
                        if S::MINIMA {
                            let target = &mut minima[step * LANES..][..LANES];
                            L::store(target.as_mut_ptr(), scales.minimum::<L>(header, step));
                        }
                    }
                }
            }
        }
    }
}

struct Tiles<'a, const T: usize> {
    out: &'a Chunks<f32>,
    x: &'a RoundedRows,
    weight: &'a Packed,
    unpacked: &'a Unpacked,
    first_panel: usize,
    panels: usize,
    rows: std::ops::Range<usize>,
    accumulate: bool,
}

impl<const T: usize> IntegerKernel for Tiles<'_, T> {
    #[inline(always)]
    unsafe fn run<L: IntegerLanes>(self) {
        if const { T != L::TILE.rows() } {
            unreachable!("tiles of {T} rows are those of other instruction sets");
        }
        let weight = self.weight;
        // SAFETY: the instruction set is that of `L`, the constants are the matrix's.
        unsafe {
            match (weight.is_small(), weight.parts(), weight.has_minima()) {
                (true, 1, false) => self.tiles::<L, true, 1, false>(),
                (true, 1, true) => self.tiles::<L, true, 1, true>(),
                (true, _, _) => self.tiles::<L, true, 2, false>(),
                (false, _, false) => self.tiles::<L, false, 1, false>(),
                (false, _, true) => self.tiles::<L, false, 1, true>(),
            }
        }
    }
}

impl<const T: usize> Tiles<'_, T> {
    /// # Safety
    /// The instruction set is that of `L`; the constants are those of the matrix.
    #[inline(always)]
    unsafe fn tiles<L: IntegerLanes, const SMALL: bool, const PARTS: usize, const MINIMA: bool>(self) {
        for tile in self.rows.start / T..self.rows.end.div_ceil(T) {
            let records = self.x.tile(tile);
            // SAFETY: as the caller says.
            unsafe {
                if L::TILE == Tile::Wide && self.panels == 2 {
                    self.write::<L, 2>(0, tile, self.tile::<L, SMALL, PARTS, MINIMA, 2>(0, records));
                } else {
                    for panel in 0..self.panels {
                        self.write::<L, 1>(panel, tile, self.tile::<L, SMALL, PARTS, MINIMA, 1>(panel, records));
                    }
                }
            }
        }
    }

    /// The inner products of `P` panels from `panel` on with a tile of activations.
    ///
    /// # Safety
    /// As of [`Tiles::tiles`]; there are so many panels.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "an index runs over several arrays of registers")]
    unsafe fn tile<L: IntegerLanes, const SMALL: bool, const PARTS: usize, const MINIMA: bool, const P: usize>(
        &self,
        panel: usize,
        records: &[i32],
    ) -> [[L::Floats; T]; P] {
        let steps = self.weight.steps();
        assert!(records.len() >= steps * Record::<T, PARTS>::WORDS, "records too short");
        let Unpacked { numbers, scales, minima } = self.unpacked;
        let numbers: [_; P] = std::array::from_fn(|p| numbers[(panel + p) * steps * QUADS..].as_ptr().cast::<u8>());
        let scales: [_; P] = std::array::from_fn(|p| scales[(panel + p) * steps * PARTS * LANES..].as_ptr());
        let minima: [_; P] = std::array::from_fn(|p| minima[(panel + p) * steps * LANES..].as_ptr());
        // SAFETY: each pointer is followed for `steps` steps, which its slice holds.
        unsafe {
            let mut sums = [[L::splat(0.0); T]; P];
            for step in 0..steps {
                let record = records.as_ptr().add(step * Record::<T, PARTS>::WORDS);
                let corrections = record.add(Record::<T, PARTS>::CORRECTIONS);
                let factors = record.add(Record::<T, PARTS>::SCALES).cast::<f32>();
                let totals = record.add(Record::<T, PARTS>::SUMS).cast::<f32>();
                for part in 0..PARTS {
                    let sums_before = std::array::from_fn(|t| corrections.add(t * PARTS + part).read());
                    let here = numbers.map(|numbers| numbers.add(step * QUADS * QUAD_BYTES));
                    let quads = part * QUADS / PARTS..(part + 1) * QUADS / PARTS;
                    let products = L::products::<SMALL, T, P>(here, record.cast(), sums_before, quads);
                    for p in 0..P {
                        let scale = L::load(scales[p].add((step * PARTS + part) * LANES));
                        for t in 0..T {
                            let scale = L::mul(scale, L::splat(factors.add(t).read()));
                            sums[p][t] = L::mul_add(L::to_floats(products[p][t]), scale, sums[p][t]);
                        }
                    }
                }
                if MINIMA {
                    for p in 0..P {
                        let minimum = L::load(minima[p].add(step * LANES));
                        for t in 0..T {
                            let sum = L::splat(totals.add(t).read());
                            sums[p][t] = L::mul_add(minimum, sum, sums[p][t]);
                        }
                    }
                }
            }
            sums
        }
    }

    /// Puts the sums of a tile in their places.
    ///
    /// # Safety
    /// The instruction set is that of `L`.
    #[inline(always)]
    unsafe fn write<L: IntegerLanes, const P: usize>(&self, panel: usize, tile: usize, sums: [[L::Floats; T]; P]) {
        let outputs = self.weight.rows();
        for (p, sums) in sums.into_iter().enumerate() {
            let first = (self.first_panel + panel + p) * LANES;
            let count = LANES.min(outputs - first);
            for (row, sums) in (tile * T..self.rows.end).zip(sums) {
                // SAFETY: a task alone writes its rows and columns of `out`; the instruction set is that of `L`.
                unsafe { write::<L>(self.out.slice(row * outputs + first, count), sums, self.accumulate) };
            }
        }
    }
}
