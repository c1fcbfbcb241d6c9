//! B in the order in which the tiles read it.

use std::ops::Range;

use super::{DEPTH, View, slice};
use crate::Threads;
use crate::cache_line::{CacheLine, reserve};
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
        // Small groups, so that the threads share the work evenly and the counter is not fought over.
        const GROUP: usize = 4;
        let groups = across.div_ceil(GROUP);
        threads.run(groups * depth.len().div_ceil(DEPTH), |task| {
            let slice = slice(&depth, task / groups);
            let before = (slice.start - depth.start) * across * width;
            for panel in task % groups * GROUP..across.min((task % groups + 1) * GROUP) {
                let length = slice.len() * width;
                // SAFETY: each panel of each slice belongs to one task, and each task is run once.
                let target = unsafe { chunks.slice(before + panel * length, length) };
                let first = columns.start + panel * width;
                let here = first..columns.end.min(first + width);
                dispatch(
                    #[inline(always)]
                    || pack(target, b, here, width, slice.clone()),
                );
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

/// Packs `columns` of rows `depth` as `[depth][width]`, with zeros beyond the last column.
#[inline(always)]
fn pack(target: &mut [f32], view: View<Matrix<'_>>, columns: Range<usize>, width: usize, depth: Range<usize>) {
    let mut buffer = [0.0; DEPTH];
    let count = columns.len();
    if view.column_stride == 1 {
        match (width, count) {
            (16, 16) => return pack_whole::<16>(target, view, columns.start, depth),
            (32, 32) => return pack_whole::<32>(target, view, columns.start, depth),
            _ => {}
        }
        for (row, target) in depth.zip(target.chunks_exact_mut(width)) {
            let source = view.data.widened(row * view.row_stride + columns.start, count, &mut buffer);
            target[..count].copy_from_slice(source);
            target[count..].fill(0.0);
        }
    } else {
        // By squares, so that lines are read and written whole while they are in the cache.
        const SQUARE: usize = 16;
        let mut buffers = [[0.0; DEPTH]; SQUARE];
        for first in (0..width).step_by(SQUARE) {
            let mut sources: [&[f32]; SQUARE] = [&[0.0; DEPTH]; SQUARE];
            let columns = (columns.start + first..columns.end).zip(&mut sources);
            for ((column, source), buffer) in columns.zip(&mut buffers) {
                *source = view.data.widened(column * view.column_stride + depth.start, depth.len(), buffer);
            }
            for (k, target) in target.chunks_mut(SQUARE * width).enumerate() {
                let mut square = [[0.0; SQUARE]; SQUARE];
                for (row, source) in square.iter_mut().zip(&sources) {
                    match source[k * SQUARE..depth.len()].first_chunk() {
                        Some(source) => *row = *source,
                        None => row[..depth.len() - k * SQUARE].copy_from_slice(&source[k * SQUARE..depth.len()]),
                    }
                }
                for (k, target) in target.chunks_exact_mut(width).enumerate() {
                    for (target, row) in target[first..].iter_mut().zip(&square) {
                        *target = row[k];
                    }
                }
            }
        }
    }
}

/// Packs `WIDTH` columns from `first` on of rows `depth`: copies of a known length are no calls.
#[inline(always)]
fn pack_whole<const WIDTH: usize>(target: &mut [f32], view: View<Matrix<'_>>, first: usize, depth: Range<usize>) {
    let mut buffer = [0.0; WIDTH];
    for (row, target) in depth.zip(target.as_chunks_mut::<WIDTH>().0) {
        if let Some(source) = view.data.widened(row * view.row_stride + first, WIDTH, &mut buffer).as_array() {
            *target = *source;
        }
    }
}
