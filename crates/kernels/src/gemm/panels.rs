//! B in the order in which the tiles read it.

use std::ops::Range;

use super::{DEPTH, View, slice};
use crate::Threads;
use crate::cache_line::{CacheLine, reserve};
use crate::lanes::{self, Element, Kernel, LANES, Lanes};
use crate::matrix::Matrix;
use crate::simd::dispatch;
use crate::threads::Chunks;

/// A part of B, cut into slices of the inner dimension and these into panels `[slice length][width]`, with zeros beyond the
/// last column.
pub(super) struct Panels<'a> {
    data: &'a [f32],
    pub(super) width: usize,
    /// The part of the inner dimension.
    pub(super) depth: Range<usize>,
    /// The part of the columns.
    pub(super) columns: Range<usize>,
}

impl<'a> Panels<'a> {
    pub(super) fn pack(
        threads: &Threads,
        buffer: &'a mut Vec<CacheLine>,
        b: View<Matrix<'_>>,
        columns: Range<usize>,
        depth: Range<usize>,
        width: usize,
    ) -> Self {
        let across = columns.len().div_ceil(width);
        let data: &mut [f32] = reserve(buffer, across * width * depth.len());
        let chunks = Chunks::new(data, 1);
        threads.run(across, |panel| {
            let first = columns.start + panel * width;
            let here = first..columns.end.min(first + width);
            // Slices one after the other, so that memory is read on where the one before ended.
            for i in 0..depth.len().div_ceil(DEPTH) {
                let slice = slice(&depth, i);
                let before = (slice.start - depth.start) * across * width;
                let length = slice.len() * width;
                // SAFETY: each panel of each slice belongs to one task, and each task is run once.
                let target = unsafe { chunks.slice(before + panel * length, length) };
                match b.column_stride {
                    1 => dispatch(
                        #[inline(always)]
                        || copy(target, b, here.clone(), width, slice),
                    ),
                    _ => transpose(target, b, here.clone(), width, slice),
                }
            }
        });
        Self { data, width, depth, columns }
    }

    /// The panel that begins with `column` (counted from the part's first) in a slice that begins `before` the part's.
    #[inline(always)]
    pub(super) fn panel(&self, slice: &Range<usize>, column: usize) -> &'a [f32] {
        let across = self.columns.len().div_ceil(self.width);
        let start = (slice.start - self.depth.start) * across * self.width + column * slice.len();
        &self.data[start..][..slice.len() * self.width]
    }
}

/// Packs `columns` of rows `depth`, which are contiguous, as `[depth][width]`, with zeros beyond the last column.
#[inline(always)]
fn copy(target: &mut [f32], view: View<Matrix<'_>>, columns: Range<usize>, width: usize, depth: Range<usize>) {
    let mut buffer = [0.0; DEPTH];
    let count = columns.len();
    match (width, count) {
        (16, 16) => return copy_whole::<16>(target, view, columns.start, depth),
        (32, 32) => return copy_whole::<32>(target, view, columns.start, depth),
        _ => {}
    }
    for (row, target) in depth.zip(target.chunks_exact_mut(width)) {
        let source = view.data.widened(row * view.row_stride + columns.start, count, &mut buffer);
        target[..count].copy_from_slice(source);
        target[count..].fill(0.0);
    }
}

/// Packs `columns`, of which each is contiguous, of rows `depth` as `[depth][width]`, with zeros beyond the last column.
fn transpose(target: &mut [f32], view: View<Matrix<'_>>, columns: Range<usize>, width: usize, depth: Range<usize>) {
    let stride = view.column_stride;
    match view.data {
        Matrix::F32(data) => lanes::dispatch(Transpose { target, data, stride, columns, width, depth }),
        Matrix::F16(data) => lanes::dispatch(Transpose { target, data, stride, columns, width, depth }),
        Matrix::BF16(data) => lanes::dispatch(Transpose { target, data, stride, columns, width, depth }),
        Matrix::Blocks(_) | Matrix::Affine(_) | Matrix::Packed(_) | Matrix::Joined(_) => {
            let mut widened = vec![0.0; columns.len() * DEPTH];
            for (column, widened) in columns.clone().zip(widened.chunks_exact_mut(DEPTH)) {
                let source = view.data.widened(column * stride + depth.start, depth.len(), widened);
                debug_assert_eq!(source.len(), depth.len());
            }
            let (columns, depth) = (0..columns.len(), 0..depth.len());
            lanes::dispatch(Transpose { target, data: &widened, stride: DEPTH, columns, width, depth });
        }
    }
}

struct Transpose<'a, E> {
    target: &'a mut [f32],
    data: &'a [E],
    /// Distance of neighbouring columns.
    stride: usize,
    columns: Range<usize>,
    width: usize,
    depth: Range<usize>,
}

impl<E: Element> Kernel for Transpose<'_, E> {
    type Output = ();

    /// By squares, whose rows are lines of the cache, read and written once.
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { target, data, stride, columns, width, depth } = self;
        for first in (0..width).step_by(LANES) {
            let columns = columns.end.min(columns.start + first)..columns.end.min(columns.start + first + LANES);
            for k in (0..depth.len()).step_by(LANES) {
                let length = LANES.min(depth.len() - k);
                let mut square = [lanes.splat(0.0); LANES];
                for (row, column) in square.iter_mut().zip(columns.clone()) {
                    let source = &data[column * stride + depth.start + k..][..length];
                    *row = match source.as_array() {
                        Some(source) => E::load(lanes, source),
                        None => {
                            let mut padded = [E::zeroed(); LANES];
                            padded[..length].copy_from_slice(source);
                            E::load(lanes, &padded)
                        }
                    };
                }
                let square = lanes.transpose(square);
                for (target, row) in target[k * width..].chunks_exact_mut(width).zip(square).take(length) {
                    let row = lanes.to_array(row);
                    match target[first..].first_chunk_mut() {
                        Some(target) => *target = row,
                        None => target[first..].copy_from_slice(&row[..width - first]),
                    }
                }
            }
        }
    }
}

/// Packs `WIDTH` columns from `first` on of rows `depth`: copies of a known length are no calls.
#[inline(always)]
fn copy_whole<const WIDTH: usize>(target: &mut [f32], view: View<Matrix<'_>>, first: usize, depth: Range<usize>) {
    let mut buffer = [0.0; WIDTH];
    for (row, target) in depth.zip(target.as_chunks_mut::<WIDTH>().0) {
        if let Some(source) = view.data.widened(row * view.row_stride + first, WIDTH, &mut buffer).as_array() {
            *target = *source;
        }
    }
}
