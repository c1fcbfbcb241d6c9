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
//! Where both are `bf16`, pairs of columns are multiplied at a time, and all else is the same.
//!
//! A sum is a vector of sixteen lanes along the inner dimension, whose lanes are added up at the end in the order of
//! [`dot`](crate::simd::dot). What a row gives depends neither on the rows beside it, nor on the number of threads, nor on the
//! instruction set.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use half::bf16;

use crate::Threads;
use crate::cache_line::{CacheLine, reserve};
use crate::lanes::{Element, Job, LANES, Lanes, add_pair, dispatch, with_pairs};
use crate::matrix::Matrix;
use crate::simd::reduce;
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
    if out.is_empty() {
        return;
    }
    let outputs = weight.len() / inputs;
    dispatch(Product { threads, out: &Chunks::new(out, 1), x: Rows::Wide(x), weight, inputs, outputs, accumulate });
}

/// [`product`] of numbers in `bf16`, whose products are added to sums in `f32` by pairs: see [`add_pair`].
pub(crate) fn product_of_pairs(
    threads: &Threads,
    out: &mut [f32],
    x: &[bf16],
    weight: &[bf16],
    inputs: usize,
    accumulate: bool,
) {
    if out.is_empty() {
        return;
    }
    let outputs = weight.len() / inputs;
    let (out, matrix) = (Chunks::new(out, 1), Matrix::BF16(weight));
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
fn dot_of_pairs(x: &[bf16], weight: &[bf16]) -> f32 {
    let mut sums = [0.0; LANES];
    for (x, weight) in x.chunks(Pairs::COLUMNS).zip(weight.chunks(Pairs::COLUMNS)) {
        let (x, weight) = (padded(x), padded(weight));
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

impl Job for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        // Tiles whose sums, with a vector of each row, fill the registers.
        let rows = self.rows();
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
    fn rows(&self) -> usize {
        let length = match self.x {
            Rows::Wide(x) => x.len(),
            Rows::Pairs(x) => x.len(),
        };
        length / self.inputs
    }

    /// Vectors of a row.
    fn vectors(&self) -> usize {
        self.inputs.div_ceil(if matches!(self.x, Rows::Pairs(_)) { Pairs::COLUMNS } else { LANES })
    }

    #[inline(always)]
    fn few<L: Lanes, const R: usize, const C: usize>(self, lanes: L) {
        let is_float = matches!(self.weight, Matrix::F32(_) | Matrix::F16(_) | Matrix::BF16(_));
        let block = if is_float { STREAMED_ROWS } else { WIDENED_ROWS };
        PANELS.with_borrow_mut(|buffer| {
            let panels = room(buffer, self.rows(), self.vectors(), C);
            match self.x {
                Rows::Wide(rows) => lanes.run(Lay::<Wide<_>, C> { rows, inputs: self.inputs, panels }),
                Rows::Pairs(rows) => lanes.run(Lay::<Pairs, C> { rows, inputs: self.inputs, panels }),
            }
            self.threads.run(self.outputs.div_ceil(block), |task| {
                let outputs = task * block..self.outputs.min((task + 1) * block);
                let range = outputs.start * self.inputs..outputs.end * self.inputs;
                match (self.weight, self.x) {
                    (Matrix::BF16(weight), Rows::Pairs(_)) => {
                        self.stream::<L, Pairs, R, C>(lanes, &weight[range], panels, outputs);
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
                        lanes.run(Lay::<Pairs, C> { rows: &rows[range], inputs, panels });
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
                        lanes.run(Pass::<Pairs, R, C, true> {
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

/// What is multiplied: elements of rows that pass by, and vectors of rows in panels, which take as much as sixteen `f32`.
trait Factors: Sized {
    type Element: bytemuck::Pod + Send + Sync;
    /// Columns of a vector.
    const COLUMNS: usize;
    type Vector<L: Lanes>: Copy;

    /// A vector of a row that passes by.
    ///
    /// # Safety
    /// There are so many columns at `from`.
    unsafe fn load<L: Lanes>(lanes: L, from: *const Self::Element) -> Self::Vector<L>;
    /// A vector of a panel.
    fn load_laid<L: Lanes>(lanes: L, from: &[f32; LANES]) -> Self::Vector<L>;
    /// A vector of a row as it lies in a panel.
    ///
    /// # Safety
    /// As of [`Factors::load`].
    unsafe fn lay<L: Lanes>(lanes: L, from: *const Self::Element) -> [f32; LANES];
    fn mul_add<L: Lanes>(lanes: L, x: Self::Vector<L>, y: Self::Vector<L>, sum: L::Vector) -> L::Vector;
}

/// Numbers that are widened to `f32`.
struct Wide<T>(PhantomData<T>);

impl<T: Element> Factors for Wide<T> {
    type Element = T;
    const COLUMNS: usize = LANES;
    type Vector<L: Lanes> = L::Vector;

    #[inline(always)]
    unsafe fn load<L: Lanes>(lanes: L, from: *const T) -> L::Vector {
        // SAFETY: as the caller says.
        T::load(lanes, unsafe { &*from.cast() })
    }

    #[inline(always)]
    fn load_laid<L: Lanes>(lanes: L, from: &[f32; LANES]) -> L::Vector {
        lanes.load(from)
    }

    #[inline(always)]
    unsafe fn lay<L: Lanes>(lanes: L, from: *const T) -> [f32; LANES] {
        // SAFETY: as the caller says.
        lanes.to_array(unsafe { Self::load(lanes, from) })
    }

    #[inline(always)]
    fn mul_add<L: Lanes>(lanes: L, x: L::Vector, y: L::Vector, sum: L::Vector) -> L::Vector {
        lanes.mul_add(x, y, sum)
    }
}

/// Pairs of `bf16`.
struct Pairs;

impl Factors for Pairs {
    type Element = bf16;
    const COLUMNS: usize = 2 * LANES;
    type Vector<L: Lanes> = L::Pairs;

    #[inline(always)]
    unsafe fn load<L: Lanes>(lanes: L, from: *const bf16) -> L::Pairs {
        // SAFETY: as the caller says.
        lanes.load_pairs(unsafe { &*from.cast() })
    }

    #[inline(always)]
    fn load_laid<L: Lanes>(lanes: L, from: &[f32; LANES]) -> L::Pairs {
        lanes.load_pairs(bytemuck::cast_ref(from))
    }

    #[inline(always)]
    unsafe fn lay<L: Lanes>(_lanes: L, from: *const bf16) -> [f32; LANES] {
        // SAFETY: as the caller says.
        bytemuck::cast(unsafe { from.cast::<[bf16; 2 * LANES]>().read() })
    }

    #[inline(always)]
    fn mul_add<L: Lanes>(lanes: L, x: L::Pairs, y: L::Pairs, sum: L::Vector) -> L::Vector {
        lanes.add_pairs(x, y, sum)
    }
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

impl<F: Factors, const C: usize> Job for Lay<'_, F, C> {
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

/// Rows that pass by all panels: rows of `x` if `X`, otherwise weight rows.
struct Pass<'a, F: Factors, const R: usize, const C: usize, const X: bool> {
    product: &'a Product<'a>,
    passing: &'a [F::Element],
    panels: &'a [[f32; LANES]],
    /// Sums of a tile for each panel, between slices.
    partial: &'a mut [[f32; LANES]],
    /// The rows of `x` and the weight rows.
    rows: Range<usize>,
    outputs: Range<usize>,
}

impl<F: Factors, const R: usize, const C: usize, const X: bool> Job for Pass<'_, F, R, C, X> {
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

impl<F: Factors, const R: usize, const C: usize, const X: bool> Pass<'_, F, R, C, X> {
    /// The rows `passing`, some of which may be behind the last, meet all panels: in slices of whole vectors, then with what is
    /// left.
    #[inline(always)]
    fn tiles<L: Lanes, const H: usize>(&mut self, lanes: L, passing: [usize; H]) {
        let inputs = self.product.inputs;
        let (whole, vectors) = (inputs / F::COLUMNS, inputs.div_ceil(F::COLUMNS));
        let last = self.passing.len() / inputs - 1;
        let rows = passing.map(|row| &self.passing[row.min(last) * inputs..][..inputs]);
        let mut rests = [[bytemuck::Zeroable::zeroed(); 2 * LANES]; H];
        if whole < vectors {
            rests = rows.map(|row| padded(&row[whole * F::COLUMNS..]));
        }
        // What streams by is not read in pieces.
        let slice = if X { SLICE } else { usize::MAX };
        let mut start = 0;
        while start < vectors {
            let (rows, length) = match whole - start {
                0 => (rests.each_ref().map(|rest| rest.as_ptr()), 1),
                left => (rows.map(|row| row[start * F::COLUMNS..].as_ptr()), left.min(slice)),
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
                let sums = unsafe { add_products::<_, F, H, C, X>(lanes, sums, rows, panel) };
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
unsafe fn add_products<L: Lanes, F: Factors, const H: usize, const C: usize, const NEAR: bool>(
    lanes: L,
    mut sums: [[L::Vector; C]; H],
    rows: [*const F::Element; H],
    panel: &[[[f32; LANES]; C]],
) -> [[L::Vector; C]; H] {
    for (i, panel) in panel.iter().enumerate() {
        if !NEAR && (i * F::COLUMNS * size_of::<F::Element>()).is_multiple_of(CacheLine::BYTES) {
            for row in rows {
                lanes.prefetch(row.wrapping_add(i * F::COLUMNS).cast::<u8>().wrapping_add(AHEAD));
            }
        }
        // The fewer vectors are loaded first.
        if C <= H {
            let mut vectors = [F::load_laid(lanes, &panel[0]); C];
            for c in 1..C {
                vectors[c] = F::load_laid(lanes, &panel[c]);
            }
            for r in 0..H {
                // SAFETY: as the caller says.
                let row = unsafe { F::load(lanes, rows[r].add(i * F::COLUMNS)) };
                for c in 0..C {
                    sums[r][c] = F::mul_add(lanes, row, vectors[c], sums[r][c]);
                }
            }
        } else {
            // SAFETY: as the caller says.
            let mut vectors = [unsafe { F::load(lanes, rows[0].add(i * F::COLUMNS)) }; H];
            for r in 1..H {
                // SAFETY: as the caller says.
                vectors[r] = unsafe { F::load(lanes, rows[r].add(i * F::COLUMNS)) };
            }
            for c in 0..C {
                let column = F::load_laid(lanes, &panel[c]);
                for r in 0..H {
                    sums[r][c] = F::mul_add(lanes, vectors[r], column, sums[r][c]);
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

/// What is left of a row, with zeros behind it: no more than a vector, of which there may be two.
#[inline(always)]
fn padded<T: bytemuck::Pod>(rest: &[T]) -> [T; 2 * LANES] {
    let mut padded = [T::zeroed(); 2 * LANES];
    padded[..rest.len()].copy_from_slice(rest);
    padded
}

#[cfg(test)]
mod tests;
