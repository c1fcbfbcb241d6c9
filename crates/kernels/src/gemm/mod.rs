//! Matrix products in `f32` over packed panels, after Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication" (2008).
//!
//! ```text
//! for a part of B that fits the buffer for packing:
//!     pack it into panels [DEPTH][tile columns]                                      (shared by all threads)
//!     for each block of C, one task; for each slice of the inner dimension (DEPTH long):
//!         lay out the slice of A's rows, which then stays in the caches of one core
//!         for each tile of the block: sum over DEPTH in registers, then add to C
//! ```
//!
//! Packing reads any strides and widens weights of fewer bits. Every element of C is summed in the same order whatever the
//! number of threads: slices one after the other, and one fused multiply-add after the other within a slice.

mod panels;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::Threads;
use crate::cache_line::{CacheLine, reserve};
use crate::matrix::Matrix;
use crate::threads::Chunks;
use panels::Panels;

/// Length of a slice of the inner dimension: a tile's rows of A then take less than half of the L1 cache.
const DEPTH: usize = 256;
/// Most columns of C in a task: a slice of their panels of B stays in the L2 cache.
const TASK_COLUMNS: usize = 512;
/// Fewest columns of C in a task, where there are few rows.
const NARROW_COLUMNS: usize = 128;
/// Most tiles of C, one above the other, in a task.
const TASK_TILES: usize = 10;
/// Tasks that a product is cut into, if it is large enough: enough for the threads to end together.
const TASKS: usize = 24;
/// Elements of B packed at a time.
const PACKED: usize = 1 << 21;

/// A matrix `[rows, columns]` of elements `D`, seen through strides, one of which is 1.
#[derive(Clone, Copy)]
pub(crate) struct View<D> {
    data: D,
    /// Distance of neighbouring rows.
    row_stride: usize,
    /// Distance of neighbouring columns.
    column_stride: usize,
}

impl<D> View<D> {
    /// Rows of `stride` elements, of which the first columns are used.
    pub(crate) fn rows(data: D, stride: usize) -> Self {
        Self { data, row_stride: stride, column_stride: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { data: self.data, row_stride: self.column_stride, column_stride: self.row_stride }
    }
}

/// What is to be computed: `out[m, n] (+)= a[m, k] b[k, n]`, rows of `out` `stride` apart.
pub(crate) struct Product<'a> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: View<&'a [f32]>,
    /// Quantised weights only as the transposed of their rows: they are read by whole blocks.
    pub b: View<Matrix<'a>>,
    /// Whether to add to `out` instead of overwriting it.
    pub accumulate: bool,
}

thread_local! {
    /// Panels of B, kept between calls.
    static PANELS: RefCell<Vec<CacheLine>> = const { RefCell::new(Vec::new()) };
    /// The rows of A that a task is at.
    static ROWS_OF_A: RefCell<Vec<CacheLine>> = const { RefCell::new(Vec::new()) };
}

/// Computes `product` into `out`, whose rows lie `stride` elements apart.
pub(crate) fn gemm(threads: &Threads, out: &mut [f32], stride: usize, product: Product<'_>) {
    if product.m == 0 || product.n == 0 {
        return;
    }
    assert!(product.n <= stride && (product.m - 1) * stride + product.n <= out.len(), "output too short");
    PANELS.with_borrow_mut(|panels| {
        pulp::Arch::new().dispatch(Gemm { threads, out, stride, product, panels, packed: PACKED });
    });
}

struct Gemm<'a> {
    threads: &'a Threads,
    out: &'a mut [f32],
    stride: usize,
    product: Product<'a>,
    panels: &'a mut Vec<CacheLine>,
    /// Elements of B packed at a time.
    packed: usize,
}

impl WithSimd for Gemm<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Tile shapes that leave registers for a row of B and a broadcast element of A.
        match (S::F32_LANES, S::REGISTER_COUNT) {
            (16, _) => self.blocked::<S, 12, 2>(simd),
            (4, 32..) => self.blocked::<S, 6, 4>(simd),
            (1, _) => self.blocked::<S, 4, 4>(simd),
            _ => self.blocked::<S, 6, 2>(simd),
        }
    }
}

impl Gemm<'_> {
    #[inline(always)]
    fn blocked<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        let Self { threads, out, stride, product, panels, packed } = self;
        let Product { m, n, k, a, b, accumulate } = product;
        if k == 0 && !accumulate {
            out.chunks_mut(stride).take(m).for_each(|row| row[..n].fill(0.0));
        }
        let out = Chunks::new(out, stride);
        let width = VECTORS * S::F32_LANES;
        let tiles = m.div_ceil(ROWS);
        // Whole columns of B if possible: a block of C then stays in the caches until it is finished.
        let packed_columns = (packed / k.max(1) / TASK_COLUMNS * TASK_COLUMNS).max(TASK_COLUMNS).min(n);
        let packed_depth = (packed / packed_columns / DEPTH * DEPTH).max(DEPTH);
        for first_column in (0..n).step_by(packed_columns) {
            let columns = first_column..n.min(first_column + packed_columns);
            // Few rows are cut into more tasks across.
            let narrow = (TASKS / tiles).min(columns.len() / NARROW_COLUMNS);
            let tasks_across = columns.len().div_ceil(TASK_COLUMNS).max(narrow);
            let task_columns = columns.len().div_ceil(tasks_across).next_multiple_of(width);
            // A function of the shape alone, as everything that decides how sums are formed.
            let task_tiles = (tiles * tasks_across).div_ceil(TASKS).clamp(1, TASK_TILES);
            let task_rows = task_tiles * ROWS;
            for first_depth in (0..k).step_by(packed_depth) {
                let depth = first_depth..k.min(first_depth + packed_depth);
                let panels = Panels::pack(threads, panels, b, columns.clone(), depth.clone(), width);
                threads.run(m.div_ceil(task_rows) * tasks_across, |task| {
                    let (down, across) = (task / tasks_across * task_rows, task % tasks_across * task_columns);
                    let block = Block::<ROWS, VECTORS> {
                        out: &out,
                        stride,
                        a,
                        panels: &panels,
                        rows: down..m.min(down + task_rows),
                        columns: across.min(columns.len())..columns.len().min(across + task_columns),
                        accumulate: accumulate || first_depth > 0,
                    };
                    ROWS_OF_A.with_borrow_mut(|scratch| simd.vectorize(Task { block, scratch }));
                });
            }
        }
    }
}

/// The slice `i` of a part of the inner dimension.
#[inline(always)]
fn slice(depth: &Range<usize>, i: usize) -> Range<usize> {
    let start = depth.start + i * DEPTH;
    start..depth.end.min(start + DEPTH)
}

/// The tiles of `rows` x `columns` of C.
struct Block<'a, const ROWS: usize, const VECTORS: usize> {
    out: &'a Chunks<f32>,
    stride: usize,
    a: View<&'a [f32]>,
    panels: &'a Panels<'a>,
    rows: Range<usize>,
    /// Counted from the first column of the panels.
    columns: Range<usize>,
    accumulate: bool,
}

/// A task, and the memory for its rows of A.
struct Task<'a, const ROWS: usize, const VECTORS: usize> {
    block: Block<'a, ROWS, VECTORS>,
    scratch: &'a mut Vec<CacheLine>,
}

impl<const ROWS: usize, const VECTORS: usize> WithSimd for Task<'_, ROWS, VECTORS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { block, scratch } = self;
        let scratch: &mut [f32] = reserve(scratch, block.rows.len().next_multiple_of(ROWS) * DEPTH);
        let (tiles, _) = scratch.as_chunks_mut::<DEPTH>().0.as_chunks_mut::<ROWS>();
        for i in 0..block.panels.depth.len().div_ceil(DEPTH) {
            let slice = slice(&block.panels.depth, i);
            let add = block.accumulate || i > 0;
            if block.a.column_stride == 1 {
                lay_rows(tiles, block.a, block.rows.clone(), slice.clone());
                block.tiles::<S, true>(simd, tiles, slice, add);
            } else {
                lay_columns(tiles, block.a, block.rows.clone(), slice.clone());
                block.tiles::<S, false>(simd, tiles, slice, add);
            }
        }
    }
}

/// Lays out rows of A, slices of which are contiguous, as `[ROWS][DEPTH]` for each tile, with zeros beyond the last row.
#[inline(always)]
fn lay_rows<const ROWS: usize>(
    tiles: &mut [[[f32; DEPTH]; ROWS]],
    a: View<&[f32]>,
    rows: Range<usize>,
    slice: Range<usize>,
) {
    for (row, target) in (rows.start..).zip(tiles.as_flattened_mut()) {
        if row < rows.end {
            target[..slice.len()].copy_from_slice(&a.data[row * a.row_stride + slice.start..][..slice.len()]);
        } else {
            target.fill(0.0);
        }
    }
}

/// Lays out rows of A, columns of which are contiguous, as `[slice length][ROWS]` for each tile, with zeros beyond the last
/// row.
#[inline(always)]
fn lay_columns<const ROWS: usize>(
    tiles: &mut [[[f32; DEPTH]; ROWS]],
    a: View<&[f32]>,
    rows: Range<usize>,
    slice: Range<usize>,
) {
    for (k, depth) in slice.enumerate() {
        let source = &a.data[depth * a.column_stride + rows.start..][..rows.len()];
        let (whole, rest) = source.as_chunks::<ROWS>();
        for (tile, source) in tiles.iter_mut().zip(whole) {
            tile.as_flattened_mut()[k * ROWS..][..ROWS].copy_from_slice(source);
        }
        if let (Some(tile), [_, ..]) = (tiles.get_mut(whole.len()), rest) {
            let (target, zeros) = tile.as_flattened_mut()[k * ROWS..][..ROWS].split_at_mut(rest.len());
            target.copy_from_slice(rest);
            zeros.fill(0.0);
        }
    }
}

impl<const ROWS: usize, const VECTORS: usize> Block<'_, ROWS, VECTORS> {
    /// Adds the products of a slice of the inner dimension to C, or writes them there.
    #[inline(always)]
    fn tiles<S: Simd, const BY_ROWS: bool>(
        &self,
        simd: S,
        tiles: &[[[f32; DEPTH]; ROWS]],
        slice: Range<usize>,
        add: bool,
    ) {
        let width = self.panels.width;
        for (row, a) in self.rows.clone().step_by(ROWS).zip(tiles) {
            for column in self.columns.clone().step_by(width) {
                let width_here = width.min(self.columns.end - column);
                let sums = tile::<S, ROWS, VECTORS, BY_ROWS>(simd, a, self.panels.panel(&slice, column));
                // Indices that the compiler knows keep the sums in registers.
                for i in 0..ROWS {
                    if row + i >= self.rows.end {
                        break;
                    }
                    let sums = sums[i];
                    let start = (row + i) * self.stride + self.panels.columns.start + column;
                    // SAFETY: tasks own disjoint rows and columns of C, and this row of the tile is written here alone.
                    let target = unsafe { self.out.slice(start, width_here) };
                    for (j, target) in target.chunks_mut(S::F32_LANES).enumerate().take(VECTORS) {
                        let sum = sums[j];
                        match S::as_mut_simd_f32s(target) {
                            ([target], _) => *target = if add { simd.add_f32s(*target, sum) } else { sum },
                            (_, target) => {
                                let sum: &[f32] = bytemuck::cast_slice(std::slice::from_ref(&sum));
                                for (target, &sum) in target.iter_mut().zip(sum) {
                                    *target = if add { *target + sum } else { sum };
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `[ROWS, columns]` sums over the depth of `a`, laid out `BY_ROWS` or by columns, and `b` `[depth][columns]`, held in
/// registers.
#[inline(always)]
fn tile<S: Simd, const ROWS: usize, const VECTORS: usize, const BY_ROWS: bool>(
    simd: S,
    a: &[[f32; DEPTH]; ROWS],
    b: &[f32],
) -> [[S::f32s; VECTORS]; ROWS] {
    let (b, _) = S::as_simd_f32s(b);
    let b = b.as_chunks::<VECTORS>().0;
    let columns = a.as_flattened().as_chunks::<ROWS>().0;
    let Some(first) = b.first() else { return [[simd.splat_f32s(0.0); VECTORS]; ROWS] };
    // The first products are where the sums begin: zeros would be written to memory and read back.
    let mut sums = [*first; ROWS];
    for i in 0..ROWS {
        let a = simd.splat_f32s(if BY_ROWS { a[i][0] } else { columns[0][i] });
        for j in 0..VECTORS {
            sums[i][j] = simd.mul_f32s(a, first[j]);
        }
    }
    for k in 1..b.len().min(DEPTH) {
        for i in 0..ROWS {
            let a = simd.splat_f32s(if BY_ROWS { a[i][k] } else { columns[k][i] });
            for j in 0..VECTORS {
                sums[i][j] = simd.mul_add_f32s(a, b[k][j], sums[i][j]);
            }
        }
    }
    sums
}
