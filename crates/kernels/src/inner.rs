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
//! In `bf16` pairs of columns are multiplied at a time, and all else is the same; weight rows of `f16` are rounded to it as they are
//! loaded.
//!
//! A sum is a vector of sixteen lanes along the inner dimension, whose lanes are added up at the end in the order of
//! [`dot`](crate::simd::dot). What a row gives depends neither on the rows beside it, nor on the number of threads, nor on the
//! instruction set.

mod factors;
mod pass;

use std::cell::RefCell;
use std::ops::Range;

use half::bf16;

use crate::Threads;
use crate::cache_line::{CacheLine, reserve};
use crate::lanes::{Half, Kernel, LANES, Lanes, add_pair, dispatch, with_pairs};
use crate::matrix::Matrix;
use crate::simd::reduce;
use crate::threads::Chunks;
use factors::{Factors, Pairs, Wide};
use pass::Pass;

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
    if out.is_empty() {
        return;
    }
    let outputs = weight.len() / inputs;
    dispatch(Product { threads, out: &Chunks::new(out, 1), x: Rows::Wide(x), weight, inputs, outputs, accumulate });
}

/// [`product`] of numbers in `bf16`, or rounded to it, whose products are added to sums in `f32` by pairs: see [`add_pair`].
pub(crate) fn product_of_pairs<T: Half>(
    threads: &Threads,
    out: &mut [f32],
    x: &[bf16],
    weight: &[T],
    inputs: usize,
    accumulate: bool,
) {
    if out.is_empty() {
        return;
    }
    let outputs = weight.len() / inputs;
    let (out, matrix) = (Chunks::new(out, 1), T::matrix(weight));
    let product = Product { threads, out: &out, x: Rows::Pairs(x), weight: matrix, inputs, outputs, accumulate };
    if with_pairs(product).is_none() {
        threads.run(outputs, |output| {
            let weight = &weight[output * inputs..][..inputs];
            for (n, x) in x.chunks_exact(inputs).enumerate() {
                // SAFETY: a task alone writes its column of `out`.
                let out = unsafe { product.out.slice(n * outputs + output, 1) };
                let sum = dot_of_pairs(x, weight);
                out[0] = if accumulate { out[0] + sum } else { sum };
            }
        });
    }
}

/// The inner product, by plain code.
fn dot_of_pairs<T: Half>(x: &[bf16], weight: &[T]) -> f32 {
    let mut sums = [0.0; LANES];
    for (x, weight) in x.chunks(2 * LANES).zip(weight.chunks(2 * LANES)) {
        let (x, weight) = (padded(x), padded(weight).map(T::to_bf16));
        for (sum, (x, weight)) in sums.iter_mut().zip(x.as_chunks().0.iter().zip(weight.as_chunks().0)) {
            *sum = add_pair(*x, *weight, *sum);
        }
    }
    reduce(sums)
}

/// The rows of `x`.
#[derive(Clone, Copy)]
enum Rows<'a> {
    Wide(&'a [f32]),
    Pairs(&'a [bf16]),
}

#[derive(Clone, Copy)]
struct Product<'a> {
    threads: &'a Threads,
    out: &'a Chunks<f32>,
    x: Rows<'a>,
    weight: Matrix<'a>,
    inputs: usize,
    outputs: usize,
    accumulate: bool,
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        // Tiles whose sums, with a vector of each row, fill the registers.
        let rows = self.rows();
        // Of the tiles that an instruction set does not use nothing is compiled.
        if const { L::WIDE_TILES } {
            if rows > FEW_ROWS {
                return self.many::<L, 6, 4>(lanes);
            }
            match rows.div_ceil(rows.div_ceil(8).max(1)) {
                0 | 1 => self.few::<L, 4, 1>(lanes),
                2 => self.few::<L, 6, 2>(lanes),
                3 => self.few::<L, 6, 3>(lanes),
                4 => self.few::<L, 6, 4>(lanes),
                5 => self.few::<L, 4, 5>(lanes),
                6 => self.few::<L, 4, 6>(lanes),
                7 => self.few::<L, 3, 7>(lanes),
                _ => self.few::<L, 3, 8>(lanes),
            }
        } else {
            match rows {
                0 | 1 => self.few::<L, 4, 1>(lanes),
                2 => self.few::<L, 3, 2>(lanes),
                3..=FEW_ROWS => self.few::<L, 2, 3>(lanes),
                _ => self.many::<L, 3, 2>(lanes),
            }
        }
    }
}

impl Product<'_> {
    fn rows(&self) -> usize {
        let length = match self.x {
            Rows::Wide(x) => x.len(),
            Rows::Pairs(x) => x.len(),
        };
        length / self.inputs
    }

    /// Vectors of a row.
    fn vectors(&self) -> usize {
        self.inputs.div_ceil(if matches!(self.x, Rows::Pairs(_)) { 2 * LANES } else { LANES })
    }

    #[inline(always)]
    fn few<L: Lanes, const R: usize, const C: usize>(self, lanes: L) {
        let is_float = matches!(self.weight, Matrix::F32(_) | Matrix::F16(_) | Matrix::BF16(_));
        let block = if is_float { STREAMED_ROWS } else { WIDENED_ROWS };
        PANELS.with_borrow_mut(|buffer| {
            let panels = room(buffer, self.rows(), self.vectors(), C);
            match self.x {
                Rows::Wide(rows) => lanes.run(Lay::<Wide<_>, C> { rows, inputs: self.inputs, panels }),
                Rows::Pairs(rows) => lanes.run(Lay::<Pairs<_>, C> { rows, inputs: self.inputs, panels }),
            }
            self.threads.run(self.outputs.div_ceil(block), |task| {
                let outputs = task * block..self.outputs.min((task + 1) * block);
                let range = outputs.start * self.inputs..outputs.end * self.inputs;
                match (self.weight, self.x) {
                    (Matrix::BF16(weight), Rows::Pairs(_)) => {
                        self.stream::<L, Pairs<_>, R, C>(lanes, &weight[range], panels, outputs);
                    }
                    (Matrix::F16(weight), Rows::Pairs(_)) => {
                        self.stream::<L, Pairs<_>, R, C>(lanes, &weight[range], panels, outputs);
                    }
                    (Matrix::F32(weight), _) => {
                        self.stream::<L, Wide<_>, R, C>(lanes, &weight[range], panels, outputs);
                    }
                    (Matrix::F16(weight), _) => {
                        self.stream::<L, Wide<_>, R, C>(lanes, &weight[range], panels, outputs);
                    }
                    (Matrix::BF16(weight), _) => {
                        self.stream::<L, Wide<_>, R, C>(lanes, &weight[range], panels, outputs);
                    }
                    _ => WIDENED.with_borrow_mut(|buffer| {
                        let weight = widen(buffer, self.weight, range);
                        self.stream::<L, Wide<_>, R, C>(lanes, weight, panels, outputs);
                    }),
                }
            });
        });
    }

    /// The weight rows `outputs` meet the panels of `x`.
    fn stream<L: Lanes, F: Factors, const R: usize, const C: usize>(
        &self,
        lanes: L,
        weight: &[F::Element],
        panels: &[[f32; LANES]],
        outputs: Range<usize>,
    ) {
        let rows = 0..self.rows();
        BLOCK.with_borrow_mut(|buffer| {
            let partial = room(buffer, rows.len(), R, C);
            lanes.run(Pass::<F, R, C, false> { product: self, passing: weight, panels, partial, rows, outputs });
        });
    }

    #[inline(always)]
    fn many<L: Lanes, const R: usize, const C: usize>(self, lanes: L) {
        let bytes = BLOCK_BYTES[if L::WIDE_TILES { 0 } else { 1 }];
        let largest = (bytes / CacheLine::BYTES / self.vectors().max(1)).clamp(BLOCK_ROWS[0], BLOCK_ROWS[1]);
        let rows = self.rows();
        let chunks = rows.div_ceil(TASK_ROWS);
        let narrow = TASKS.div_ceil(chunks).min(self.outputs / NARROW_ROWS);
        let blocks = self.outputs.div_ceil(largest).max(narrow);
        let (down, across) =
            (rows.div_ceil(chunks).next_multiple_of(R), self.outputs.div_ceil(blocks).next_multiple_of(C));
        let (chunks, blocks) = (rows.div_ceil(down), self.outputs.div_ceil(across));
        // One block of weights after the other meets the same rows of `x`: they are the ones that are read again.
        self.threads.run(chunks * blocks, |task| {
            let (row, output) = (task / blocks * down, task % blocks * across);
            let (rows, outputs) = (row..rows.min(row + down), output..self.outputs.min(output + across));
            let range = outputs.start * self.inputs..outputs.end * self.inputs;
            BLOCK.with_borrow_mut(|buffer| {
                // Panels, then sums on their way.
                let (inputs, vectors) = (self.inputs, self.vectors());
                let panels = room(buffer, outputs.len(), vectors + R, C);
                let (panels, partial) = panels.split_at_mut(outputs.len().next_multiple_of(C) * vectors);
                match (self.weight, self.x) {
                    (Matrix::BF16(rows), Rows::Pairs(_)) => {
                        lanes.run(Lay::<Pairs<_>, C> { rows: &rows[range], inputs, panels });
                    }
                    (Matrix::F16(rows), Rows::Pairs(_)) => {
                        lanes.run(Lay::<Pairs<_>, C> { rows: &rows[range], inputs, panels });
                    }
                    (Matrix::F32(rows), _) => lanes.run(Lay::<Wide<_>, C> { rows: &rows[range], inputs, panels }),
                    (Matrix::F16(rows), _) => lanes.run(Lay::<Wide<_>, C> { rows: &rows[range], inputs, panels }),
                    (Matrix::BF16(rows), _) => lanes.run(Lay::<Wide<_>, C> { rows: &rows[range], inputs, panels }),
                    _ => WIDENED.with_borrow_mut(|buffer| {
                        // A panel after the other, so that little memory is needed.
                        let panels = panels.chunks_exact_mut(C * vectors);
                        for (first, panels) in range.clone().step_by(C * inputs).zip(panels) {
                            let rows = widen(buffer, self.weight, first..range.end.min(first + C * inputs));
                            lanes.run(Lay::<Wide<_>, C> { rows, inputs, panels });
                        }
                    }),
                }
                let passing = rows.start * inputs..rows.end * inputs;
                match self.x {
                    Rows::Wide(x) => {
                        let passing = &x[passing];
                        lanes.run(Pass::<Wide<_>, R, C, true> {
                            product: &self,
                            passing,
                            panels,
                            partial,
                            rows,
                            outputs,
                        });
                    }
                    Rows::Pairs(x) => {
                        let passing = &x[passing];
                        lanes.run(Pass::<Pairs<_>, R, C, true> {
                            product: &self,
                            passing,
                            panels,
                            partial,
                            rows,
                            outputs,
                        });
                    }
                }
            });
        });
    }
}

/// Room for panels of `width` rows of so many vectors.
fn room(buffer: &mut Vec<CacheLine>, rows: usize, vectors: usize, width: usize) -> &mut [[f32; LANES]] {
    bytemuck::cast_slice_mut(reserve::<f32>(buffer, rows.next_multiple_of(width) * vectors * LANES))
}

/// The weights `range`, in `f32`.
fn widen<'a>(buffer: &'a mut Vec<CacheLine>, weight: Matrix<'_>, range: Range<usize>) -> &'a [f32] {
    let values = reserve(buffer, range.len());
    weight.widen_as_multiplied(range.start, values);
    values
}

/// Lays out rows in panels, `[groups][vectors][C]`, with zeros behind a row and anything in the place of rows behind the last.
struct Lay<'a, F: Factors, const C: usize> {
    rows: &'a [F::Element],
    inputs: usize,
    panels: &'a mut [[f32; LANES]],
}

impl<F: Factors, const C: usize> Kernel for Lay<'_, F, C> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { rows, inputs, panels } = self;
        let count = rows.len() / inputs;
        for (group, panel) in panels.chunks_exact_mut(inputs.div_ceil(F::COLUMNS) * C).enumerate() {
            let rows: [&[F::Element]; C] =
                std::array::from_fn(|c| &rows[(group * C + c).min(count - 1) * inputs..][..inputs]);
            for (i, panel) in panel.chunks_exact_mut(C).enumerate() {
                for c in 0..C {
                    let row = &rows[c][i * F::COLUMNS..];
                    // SAFETY: there are so many columns, or zeros in their place.
                    panel[c] = unsafe {
                        if row.len() >= F::COLUMNS {
                            F::lay(lanes, row.as_ptr())
                        } else {
                            F::lay(lanes, padded(row).as_ptr())
                        }
                    };
                }
            }
        }
    }
}

/// What is left of a row, with zeros behind it: no more than a vector, of which there may be two.
#[inline(always)]
fn padded<T: bytemuck::Pod>(rest: &[T]) -> [T; 2 * LANES] {
    let mut padded = [T::zeroed(); 2 * LANES];
    padded[..rest.len()].copy_from_slice(rest);
    padded
}

#[cfg(test)]
mod tests;
