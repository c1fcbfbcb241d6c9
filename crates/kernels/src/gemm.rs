//! Matrix products in `f32` over packed panels, after Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication" (2008).
//!
//! ```text
//! for a slice of the inner dimension (DEPTH long):
//!     pack A into panels [DEPTH][tile rows], B into panels [DEPTH][tile columns]      (shared by all threads)
//!     for each block of C (fits the L2 cache together with its panels), one task:
//!         for each tile of the block: sum over DEPTH in registers, then add to C
//! ```
//!
//! Packing reads any strides and widens weights of fewer bits. Every element of C is summed in the same order whatever the
//! number of threads: slices one after the other, and one fused multiply-add after the other within a slice.

use std::cell::RefCell;

use pulp::{Simd, WithSimd};

use crate::Threads;
use crate::cache_line::{CacheLine, reserve};
use crate::matrix::Matrix;
use crate::threads::Chunks;

/// Length of a slice of the inner dimension: a panel of B (at most 32 columns) then fits the L1 cache.
const DEPTH: usize = 256;
/// Columns of C in a task: their panels of B take half a megabyte.
const TASK_COLUMNS: usize = 512;
/// Tiles of C, one above the other, in a task.
const TASK_TILES: usize = 10;
/// Columns of B packed at a time, which bounds the memory for packing.
const PACKED_COLUMNS: usize = 8192;

/// A matrix `[rows, columns]` seen through strides, one of which is 1.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: Matrix<'a>,
    /// Distance of neighbouring rows.
    row_stride: usize,
    /// Distance of neighbouring columns.
    column_stride: usize,
}

impl<'a> View<'a> {
    /// Rows of `stride` elements, of which the first columns are used.
    pub(crate) fn rows(data: Matrix<'a>, stride: usize) -> Self {
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
    pub a: View<'a>,
    pub b: View<'a>,
    /// Whether to add to `out` instead of overwriting it.
    pub accumulate: bool,
}

thread_local! {
    /// Packed panels of A and B, kept between calls.
    static PACKED: RefCell<[Vec<CacheLine>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Computes `product` into `out`, whose rows lie `stride` elements apart.
pub(crate) fn gemm(threads: &Threads, out: &mut [f32], stride: usize, product: Product<'_>) {
    if product.m == 0 || product.n == 0 {
        return;
    }
    assert!(product.n <= stride && (product.m - 1) * stride + product.n <= out.len(), "output too short");
    PACKED.with_borrow_mut(|packed| pulp::Arch::new().dispatch(Gemm { threads, out, stride, product, packed }));
}

struct Gemm<'a> {
    threads: &'a Threads,
    out: &'a mut [f32],
    stride: usize,
    product: Product<'a>,
    packed: &'a mut [Vec<CacheLine>; 2],
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
        let Self { threads, out, stride, product, packed: [packed_a, packed_b] } = self;
        let Product { m, n, k, a, b, accumulate } = product;
        let columns = VECTORS * S::F32_LANES;
        if k == 0 && !accumulate {
            out.chunks_mut(stride).take(m).for_each(|row| row[..n].fill(0.0));
        }
        let out = Chunks::new(out, stride);
        for first_column in (0..n).step_by(PACKED_COLUMNS) {
            let n_here = PACKED_COLUMNS.min(n - first_column);
            for first_depth in (0..k).step_by(DEPTH) {
                let depth = DEPTH.min(k - first_depth);
                pack_both(
                    threads,
                    Panels { view: a.transposed(), along: 0..m, width: ROWS, buffer: &mut *packed_a },
                    Panels {
                        view: b,
                        along: first_column..first_column + n_here,
                        width: columns,
                        buffer: &mut *packed_b,
                    },
                    first_depth..first_depth + depth,
                );
                let add = accumulate || first_depth > 0;
                let task_rows = ROWS * TASK_TILES;
                let tasks_down = m.div_ceil(task_rows);
                let tasks_across = n_here.div_ceil(TASK_COLUMNS);
                let (packed_a, packed_b) = (bytemuck::cast_slice(packed_a), bytemuck::cast_slice(packed_b));
                threads.run(tasks_down * tasks_across, |task| {
                    simd.vectorize(Block::<ROWS, VECTORS> {
                        out: &out,
                        stride,
                        packed_a,
                        packed_b,
                        depth,
                        first_column,
                        rows: (task / tasks_across * task_rows, m.min((task / tasks_across + 1) * task_rows)),
                        columns: (
                            task % tasks_across * TASK_COLUMNS,
                            n_here.min((task % tasks_across + 1) * TASK_COLUMNS),
                        ),
                        add,
                    });
                });
            }
        }
    }
}

/// A side of the product to be cut into panels: the slice `depth` of `view`'s rows, `width` of its columns per panel.
struct Panels<'a> {
    view: View<'a>,
    along: std::ops::Range<usize>,
    width: usize,
    buffer: &'a mut Vec<CacheLine>,
}

fn pack_both(threads: &Threads, a: Panels<'_>, b: Panels<'_>, depth: std::ops::Range<usize>) {
    let panels = |p: &Panels<'_>| p.along.len().div_ceil(p.width);
    let (panels_a, panels_b) = (panels(&a), panels(&b));
    let lengths = (a.width * depth.len(), b.width * depth.len());
    let buffer_a: &mut [f32] = reserve(a.buffer, panels_a * lengths.0);
    let buffer_b: &mut [f32] = reserve(b.buffer, panels_b * lengths.1);
    let (chunks_a, chunks_b) = (Chunks::new(buffer_a, lengths.0), Chunks::new(buffer_b, lengths.1));
    let (source_a, source_b) = ((a.view, a.along, a.width), (b.view, b.along, b.width));
    // Small groups, so that the threads share the work evenly and the counter is not fought over.
    const GROUP: usize = 8;
    let groups_a = panels_a.div_ceil(GROUP);
    threads.run(groups_a + panels_b.div_ceil(GROUP), |group| {
        let (group, panels, length, chunks, (view, along, width)) = if group < groups_a {
            (group, panels_a, lengths.0, &chunks_a, &source_a)
        } else {
            (group - groups_a, panels_b, lengths.1, &chunks_b, &source_b)
        };
        for panel in group * GROUP..panels.min((group + 1) * GROUP) {
            // SAFETY: each panel belongs to one group, and each group is run once.
            let target = unsafe { chunks.slice(panel * length, length) };
            let first = along.start + panel * width;
            pack(target, *view, first, (*width).min(along.end - first), *width, depth.clone());
        }
    });
}

/// Packs columns `first..first + count` of rows `depth` as `[depth][width]`, with zeros beyond `count`.
fn pack(target: &mut [f32], view: View<'_>, first: usize, count: usize, width: usize, depth: std::ops::Range<usize>) {
    let mut buffer = [0.0; DEPTH];
    if view.column_stride == 1 {
        for (row, target) in depth.zip(target.chunks_exact_mut(width)) {
            let start = row * view.row_stride + first;
            target[..count].copy_from_slice(view.data.widened(start, count, &mut buffer));
            target[count..].fill(0.0);
        }
    } else {
        for column in 0..width {
            if column < count {
                let start = (first + column) * view.column_stride + depth.start;
                let source = view.data.widened(start, depth.len(), &mut buffer);
                for (target, &x) in target[column..].iter_mut().step_by(width).zip(source) {
                    *target = x;
                }
            } else {
                target[column..].iter_mut().step_by(width).for_each(|target| *target = 0.0);
            }
        }
    }
}

/// One task: the tiles of `rows` x `columns` of C.
struct Block<'a, const ROWS: usize, const VECTORS: usize> {
    out: &'a Chunks<f32>,
    stride: usize,
    packed_a: &'a [f32],
    packed_b: &'a [f32],
    depth: usize,
    first_column: usize,
    rows: (usize, usize),
    columns: (usize, usize),
    add: bool,
}

impl<const ROWS: usize, const VECTORS: usize> WithSimd for Block<'_, ROWS, VECTORS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = VECTORS * S::F32_LANES;
        for row in (self.rows.0..self.rows.1).step_by(ROWS) {
            let a = &self.packed_a[row * self.depth..][..ROWS * self.depth];
            for column in (self.columns.0..self.columns.1).step_by(width) {
                let b = &self.packed_b[column * self.depth..][..width * self.depth];
                let width_here = width.min(self.columns.1 - column);
                let sums = tile::<S, ROWS, VECTORS>(simd, a, b);
                for (i, sums) in sums.iter().enumerate().take(self.rows.1 - row) {
                    let start = (row + i) * self.stride + self.first_column + column;
                    // SAFETY: tasks own disjoint rows and columns of C, and this row of the tile is written here alone.
                    let target = unsafe { self.out.slice(start, width_here) };
                    if width_here == width {
                        let (target, _) = S::as_mut_simd_f32s(target);
                        for (target, &sum) in target.iter_mut().zip(sums) {
                            *target = if self.add { simd.add_f32s(*target, sum) } else { sum };
                        }
                    } else {
                        let sums: &[f32] = bytemuck::cast_slice(sums);
                        for (target, &sum) in target.iter_mut().zip(sums) {
                            *target = if self.add { *target + sum } else { sum };
                        }
                    }
                }
            }
        }
    }
}

/// `[ROWS, columns]` sums over the depth of `a` `[depth][ROWS]` and `b` `[depth][columns]`, held in registers.
#[inline(always)]
fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(simd: S, a: &[f32], b: &[f32]) -> [[S::f32s; VECTORS]; ROWS] {
    let (b, _) = S::as_simd_f32s(b);
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    for (a, b) in a.chunks_exact(ROWS).zip(b.chunks_exact(VECTORS)) {
        for i in 0..ROWS {
            let a = simd.splat_f32s(a[i]);
            for j in 0..VECTORS {
                sums[i][j] = simd.mul_add_f32s(a, b[j], sums[i][j]);
            }
        }
    }
    sums
}
