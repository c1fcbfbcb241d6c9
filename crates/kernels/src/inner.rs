//! `x W^T` for any number of rows: inner products of rows of `x` with weight rows.
//!
//! Both are contiguous along the inner dimension. A few rows of the one, widened, lie in panels: `C` rows side by side, a
//! vector of each. The rows of the other are read where they are, `R` at a time, and meet all panels.
//!
//! ```text
//! few rows of x    x in panels, made once; weights stream by, each read once from memory
//! many             a block of weights in panels, made by a task, which stays in the L2 cache; rows of x pass by
//! ```
//!
//! A sum is a vector of sixteen lanes along the inner dimension, whose lanes are added up at the end in the order of
//! [`dot`](crate::simd::dot). What a row gives depends neither on the rows beside it, nor on the number of threads, nor on the
//! instruction set.

use std::cell::RefCell;
use std::ops::Range;

use crate::Threads;
use crate::cache_line::{CacheLine, reserve};
use crate::lanes::{Element, Job, LANES, Lanes, dispatch};
use crate::matrix::Matrix;
use crate::threads::Chunks;

/// Most rows of `x` for which the memory that the weights come from is the limit.
const FEW_ROWS: usize = 16;
/// Weight rows in a task with few rows of `x`.
const STREAMED_ROWS: usize = 72;
/// The same where weights are widened first: few, so that they are still in the cache when they are used.
const WIDENED_ROWS: usize = 24;
/// Bytes that a stream of weights is fetched ahead.
const AHEAD: usize = 2048;
/// Bytes of a block of weights in panels: what stays in the L2 cache beside what passes by, where tiles are wide or not.
const BLOCK_BYTES: [usize; 2] = [736 << 10, 160 << 10];
/// Fewest and most weight rows of a block, if its bytes allow.
const BLOCK_ROWS: [usize; 2] = [12, 96];
/// Fewest where blocks are made smaller for more tasks.
const NARROW_ROWS: usize = 48;
/// Tasks that a product is cut into, if it is large enough: enough for the threads to end together.
const TASKS: usize = 24;
/// Vectors of a slice of the inner dimension: rows of `x` that meet the panels of a block then stay in the L1 cache.
const SLICE: usize = 64;
/// Most rows of `x` in a task.
const TASK_ROWS: usize = 512;

thread_local! {
    /// Rows of `x` in panels.
    static PANELS: RefCell<Vec<CacheLine>> = const { RefCell::new(Vec::new()) };
    /// Weight rows of a task in panels, and sums on their way.
    static BLOCK: RefCell<Vec<CacheLine>> = const { RefCell::new(Vec::new()) };
    /// Weight rows of a task widened.
    static WIDENED: RefCell<Vec<CacheLine>> = const { RefCell::new(Vec::new()) };
}

/// `out[n, o] (+)= sum over i of x[n, i] weight[o, i]`, with `x` `[N, inputs]`, `weight` `[outputs, inputs]`, not packed,
/// `out` `[N, outputs]`.
pub(crate) fn product(
    threads: &Threads,
    out: &mut [f32],
    x: &[f32],
    weight: Matrix<'_>,
    inputs: usize,
    accumulate: bool,
) {
    let outputs = weight.len() / inputs;
    dispatch(Product { threads, out: &Chunks::new(out, 1), x, weight, inputs, outputs, accumulate });
}

#[derive(Clone, Copy)]
struct Product<'a> {
    threads: &'a Threads,
    out: &'a Chunks<f32>,
    x: &'a [f32],
    weight: Matrix<'a>,
    inputs: usize,
    outputs: usize,
    accumulate: bool,
}

impl Job for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        // Tiles whose sums, with a vector of each row, fill the registers.
        let rows = self.x.len() / self.inputs;
        match (L::WIDE_TILES, rows) {
            (true, ..=FEW_ROWS) => match rows.div_ceil(rows.div_ceil(8).max(1)) {
                0 | 1 => self.few::<L, 4, 1>(lanes),
                2 => self.few::<L, 6, 2>(lanes),
                3 => self.few::<L, 6, 3>(lanes),
                4 => self.few::<L, 6, 4>(lanes),
                5 => self.few::<L, 4, 5>(lanes),
                6 => self.few::<L, 4, 6>(lanes),
                7 => self.few::<L, 3, 7>(lanes),
                _ => self.few::<L, 3, 8>(lanes),
            },
            (true, _) => self.many::<L, 6, 4>(lanes),
            (false, ..=1) => self.few::<L, 4, 1>(lanes),
            (false, 2) => self.few::<L, 3, 2>(lanes),
            (false, ..=FEW_ROWS) => self.few::<L, 2, 3>(lanes),
            (false, _) => self.many::<L, 3, 2>(lanes),
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn few<L: Lanes, const R: usize, const C: usize>(self, lanes: L) {
        let is_float = matches!(self.weight, Matrix::F32(_) | Matrix::F16(_) | Matrix::BF16(_));
        let block = if is_float { STREAMED_ROWS } else { WIDENED_ROWS };
        PANELS.with_borrow_mut(|buffer| {
            let panels = room(buffer, self.x.len() / self.inputs, self.inputs, C);
            lanes.run(Lay::<_, C> { rows: self.x, inputs: self.inputs, panels });
            self.threads.run(self.outputs.div_ceil(block), |task| {
                let outputs = task * block..self.outputs.min((task + 1) * block);
                let range = outputs.start * self.inputs..outputs.end * self.inputs;
                match self.weight {
                    Matrix::F32(weight) => self.stream::<L, _, R, C>(lanes, &weight[range], panels, outputs),
                    Matrix::F16(weight) => self.stream::<L, _, R, C>(lanes, &weight[range], panels, outputs),
                    Matrix::BF16(weight) => self.stream::<L, _, R, C>(lanes, &weight[range], panels, outputs),
                    _ => WIDENED.with_borrow_mut(|buffer| {
                        let weight = widen(buffer, self.weight, range);
                        self.stream::<L, _, R, C>(lanes, weight, panels, outputs);
                    }),
                }
            });
        });
    }

    /// The weight rows `outputs` meet the panels of `x`.
    fn stream<L: Lanes, T: Element, const R: usize, const C: usize>(
        &self,
        lanes: L,
        weight: &[T],
        panels: &[[f32; LANES]],
        outputs: Range<usize>,
    ) {
        let rows = 0..self.x.len() / self.inputs;
        BLOCK.with_borrow_mut(|buffer| {
            let partial = room(buffer, rows.len(), R * LANES, C);
            lanes.run(Pass::<_, R, C, false> { product: self, passing: weight, panels, partial, rows, outputs });
        });
    }

    #[inline(always)]
    fn many<L: Lanes, const R: usize, const C: usize>(self, lanes: L) {
        let bytes = BLOCK_BYTES[if L::WIDE_TILES { 0 } else { 1 }];
        let largest = (bytes / size_of::<f32>() / self.inputs).clamp(BLOCK_ROWS[0], BLOCK_ROWS[1]);
        let rows = self.x.len() / self.inputs;
        let down = rows.div_ceil(TASK_ROWS);
        let narrow = TASKS.div_ceil(down).min(self.outputs / NARROW_ROWS);
        let across = self.outputs.div_ceil(largest).max(narrow);
        let (down, across) =
            (rows.div_ceil(down).next_multiple_of(R), self.outputs.div_ceil(across).next_multiple_of(C));
        self.threads.run(rows.div_ceil(down) * self.outputs.div_ceil(across), |task| {
            let (row, output) = (task % rows.div_ceil(down) * down, task / rows.div_ceil(down) * across);
            let (rows, outputs) = (row..rows.min(row + down), output..self.outputs.min(output + across));
            let range = outputs.start * self.inputs..outputs.end * self.inputs;
            BLOCK.with_borrow_mut(|buffer| {
                // Panels, then sums on their way.
                let panels = room(buffer, outputs.len(), self.inputs.next_multiple_of(LANES) + R * LANES, C);
                let (panels, partial) =
                    panels.split_at_mut(outputs.len().next_multiple_of(C) * self.inputs.div_ceil(LANES));
                match self.weight {
                    Matrix::F32(rows) => lanes.run(Lay::<_, C> { rows: &rows[range], inputs: self.inputs, panels }),
                    Matrix::F16(rows) => lanes.run(Lay::<_, C> { rows: &rows[range], inputs: self.inputs, panels }),
                    Matrix::BF16(rows) => lanes.run(Lay::<_, C> { rows: &rows[range], inputs: self.inputs, panels }),
                    _ => WIDENED.with_borrow_mut(|buffer| {
                        // A panel after the other, so that little memory is needed.
                        let panels = panels.chunks_exact_mut(C * self.inputs.div_ceil(LANES));
                        for (first, panels) in range.clone().step_by(C * self.inputs).zip(panels) {
                            let rows = widen(buffer, self.weight, first..range.end.min(first + C * self.inputs));
                            lanes.run(Lay::<_, C> { rows, inputs: self.inputs, panels });
                        }
                    }),
                }
                let passing = &self.x[rows.start * self.inputs..rows.end * self.inputs];
                lanes.run(Pass::<_, R, C, true> { product: &self, passing, panels, partial, rows, outputs });
            });
        });
    }
}

/// Room for panels of `width` rows, `inputs` long.
fn room(buffer: &mut Vec<CacheLine>, rows: usize, inputs: usize, width: usize) -> &mut [[f32; LANES]] {
    let vectors = rows.next_multiple_of(width) * inputs.div_ceil(LANES);
    bytemuck::cast_slice_mut(reserve::<f32>(buffer, vectors * LANES))
}

/// The weights `range`, in `f32`.
fn widen<'a>(buffer: &'a mut Vec<CacheLine>, weight: Matrix<'_>, range: Range<usize>) -> &'a [f32] {
    let values = reserve(buffer, range.len());
    weight.widen_as_multiplied(range.start, values);
    values
}

/// Lays out rows in panels, `[groups][vectors][C]`, with zeros behind a row and anything in the place of rows behind the last.
struct Lay<'a, T, const C: usize> {
    rows: &'a [T],
    inputs: usize,
    panels: &'a mut [[f32; LANES]],
}

impl<T: Element, const C: usize> Job for Lay<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { rows, inputs, panels } = self;
        let count = rows.len() / inputs;
        for (group, panel) in panels.chunks_exact_mut(inputs.div_ceil(LANES) * C).enumerate() {
            let rows: [&[T]; C] = std::array::from_fn(|c| &rows[(group * C + c).min(count - 1) * inputs..][..inputs]);
            for (i, panel) in panel.chunks_exact_mut(C).enumerate() {
                for c in 0..C {
                    let row = &rows[c][i * LANES..];
                    panel[c] = match row.first_chunk() {
                        Some(x) => lanes.to_array(T::load(lanes, x)),
                        None => lanes.to_array(T::load(lanes, &padded(row))),
                    };
                }
            }
        }
    }
}

/// Rows that pass by all panels: rows of `x` if `X`, otherwise weight rows.
struct Pass<'a, T, const R: usize, const C: usize, const X: bool> {
    product: &'a Product<'a>,
    passing: &'a [T],
    panels: &'a [[f32; LANES]],
    /// Sums of a tile for each panel, between slices.
    partial: &'a mut [[f32; LANES]],
    /// The rows of `x` and the weight rows.
    rows: Range<usize>,
    outputs: Range<usize>,
}

impl<T: Element, const R: usize, const C: usize, const X: bool> Job for Pass<'_, T, R, C, X> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) {
        let count = if X { self.rows.len() } else { self.outputs.len() };
        let length = count.div_ceil(R);
        for i in 0..length {
            if X {
                let tile = std::array::from_fn(|r| i * R + r);
                match count - i * R {
                    // Fewer rows are left: a smaller tile.
                    1..=2 if R > 2 => self.tiles::<L, 2>(lanes, std::array::from_fn(|r| i * R + r)),
                    3..=4 if R > 4 => self.tiles::<L, 4>(lanes, std::array::from_fn(|r| i * R + r)),
                    _ => self.tiles::<L, R>(lanes, tile),
                }
            } else {
                // Streams are as far apart as possible, each reading on for many rows: the prefetcher of the processor loses
                // streams that meet in a page.
                self.tiles::<L, R>(lanes, std::array::from_fn(|r| r * length + i));
            }
        }
    }
}

impl<T: Element, const R: usize, const C: usize, const X: bool> Pass<'_, T, R, C, X> {
    /// The rows `passing`, some of which may be behind the last, meet all panels: in slices of whole vectors, then with what is
    /// left.
    #[inline(always)]
    fn tiles<L: Lanes, const H: usize>(&mut self, lanes: L, passing: [usize; H]) {
        let inputs = self.product.inputs;
        let (whole, vectors) = (inputs / LANES, inputs.div_ceil(LANES));
        let last = self.passing.len() / inputs - 1;
        let rows = passing.map(|row| &self.passing[row.min(last) * inputs..][..inputs]);
        let rests = rows.map(|row| padded(row.as_chunks::<LANES>().1));
        // What streams by is not read in pieces.
        let slice = if X { SLICE } else { usize::MAX };
        let mut start = 0;
        while start < vectors {
            let (rows, length) = match whole - start {
                0 => (rests.each_ref().map(|rest| rest.as_ptr()), 1),
                left => (rows.map(|row| row[start * LANES..].as_ptr()), left.min(slice)),
            };
            let end = start + length;
            for group in 0..self.panels.len() / (vectors * C) {
                let mut sums = [[lanes.splat(0.0); C]; H];
                if start > 0 {
                    let partial = &self.partial[group * R * C..][..H * C];
                    for r in 0..H {
                        for c in 0..C {
                            sums[r][c] = lanes.load(&partial[r * C + c]);
                        }
                    }
                }
                let panel = self.panels[(group * vectors + start) * C..(group * vectors + end) * C].as_chunks().0;
                // SAFETY: each pointer is to so many vectors.
                let sums = unsafe { add_products::<_, _, H, C, X>(lanes, sums, rows, panel) };
                if end == vectors {
                    self.put(passing, group * C, across(lanes, sums));
                } else {
                    let partial = &mut self.partial[group * R * C..][..H * C];
                    for r in 0..H {
                        for c in 0..C {
                            partial[r * C + c] = lanes.to_array(sums[r][c]);
                        }
                    }
                }
            }
            start = end;
        }
    }

    /// Writes the sums of a tile of rows that pass by and the rows of a panel, which begins with row `first` of its kind.
    #[inline(always)]
    fn put<const H: usize>(&self, passing: [usize; H], first: usize, sums: [[f32; C]; H]) {
        let Product { outputs, .. } = *self.product;
        if X {
            let (count, width) = (self.rows.len(), C.min(self.outputs.len() - first));
            let start = (self.rows.start + passing[0]) * outputs + self.outputs.start + first;
            if width == C && passing[H - 1] < count {
                for (r, sums) in sums.iter().enumerate() {
                    self.write(start + r * outputs, sums);
                }
            } else {
                for (r, sums) in sums.iter().enumerate().take(count - passing[0]) {
                    self.write(start + r * outputs, &sums[..width]);
                }
            }
        } else {
            let (count, height) = (self.outputs.len(), C.min(self.rows.len() - first));
            for r in 0..H {
                let start = (self.rows.start + first) * outputs + self.outputs.start + passing[r];
                for c in 0..if passing[r] < count { height } else { 0 } {
                    self.write(start + c * outputs, &sums[r][c..c + 1]);
                }
            }
        }
    }

    #[inline(always)]
    fn write(&self, start: usize, sums: &[f32]) {
        // SAFETY: tasks have disjoint rows of `x` or weight rows, and this one borrows nothing else of `out` meanwhile.
        let out = unsafe { self.product.out.slice(start, sums.len()) };
        if self.product.accumulate {
            for (out, &sum) in out.iter_mut().zip(sums) {
                *out += sum;
            }
        } else {
            out.copy_from_slice(sums);
        }
    }
}

/// Adds inner products of rows with those of a panel to `sums`. Unless `NEAR`, rows are fetched from memory well ahead: a row
/// goes on where the one before ended.
///
/// # Safety
/// `rows` point to as many vectors as the panel has.
#[inline(always)]
unsafe fn add_products<L: Lanes, T: Element, const H: usize, const C: usize, const NEAR: bool>(
    lanes: L,
    mut sums: [[L::Vector; C]; H],
    rows: [*const T; H],
    panel: &[[[f32; LANES]; C]],
) -> [[L::Vector; C]; H] {
    for (i, panel) in panel.iter().enumerate() {
        if !NEAR && (i * LANES * size_of::<T>()).is_multiple_of(CacheLine::BYTES) {
            for row in rows {
                lanes.prefetch(row.wrapping_add(i * LANES).cast::<u8>().wrapping_add(AHEAD));
            }
        }
        // The fewer vectors are loaded first.
        if C <= H {
            let mut vectors = [lanes.splat(0.0); C];
            for c in 0..C {
                vectors[c] = lanes.load(&panel[c]);
            }
            for r in 0..H {
                // SAFETY: as the caller says.
                let row = T::load(lanes, unsafe { &*rows[r].add(i * LANES).cast() });
                for c in 0..C {
                    sums[r][c] = lanes.mul_add(row, vectors[c], sums[r][c]);
                }
            }
        } else {
            let mut vectors = [lanes.splat(0.0); H];
            for r in 0..H {
                // SAFETY: as the caller says.
                vectors[r] = T::load(lanes, unsafe { &*rows[r].add(i * LANES).cast() });
            }
            for c in 0..C {
                let column = lanes.load(&panel[c]);
                for r in 0..H {
                    sums[r][c] = lanes.mul_add(vectors[r], column, sums[r][c]);
                }
            }
        }
    }
    sums
}

/// Adds up the lanes of `[H, C]` vectors.
#[inline(always)]
fn across<L: Lanes, const H: usize, const C: usize>(lanes: L, sums: [[L::Vector; C]; H]) -> [[f32; C]; H] {
    let mut results = [[0.0; C]; H];
    for first in (0..H * C).step_by(LANES) {
        let mut vectors = [lanes.splat(0.0); LANES];
        for i in 0..LANES.min(H * C - first) {
            vectors[i] = sums[(first + i) / C][(first + i) % C];
        }
        let reduced = lanes.reduce(vectors);
        for i in 0..LANES.min(H * C - first) {
            results[(first + i) / C][(first + i) % C] = reduced[i];
        }
    }
    results
}

/// What is left of a row, with zeros behind it.
#[inline(always)]
fn padded<T: Element>(rest: &[T]) -> [T; LANES] {
    let mut padded = [T::zeroed(); LANES];
    padded[..rest.len()].copy_from_slice(rest);
    padded
}

#[cfg(test)]
mod tests;
