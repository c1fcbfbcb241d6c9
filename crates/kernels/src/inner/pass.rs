//! Rows of the one operand passing by panels of the other: tiles of sums in registers.

use std::ops::Range;

use super::factors::Factors;
use super::{AHEAD, Product, SLICE, padded};
use crate::cache_line::CacheLine;
use crate::lanes::{Kernel, LANES, Lanes};

/// Rows that pass by all panels: rows of `x` if `X`, otherwise weight rows.
pub(super) struct Pass<'a, F: Factors, const R: usize, const C: usize, const X: bool> {
    pub(super) product: &'a Product<'a>,
    pub(super) passing: &'a [F::Element],
    pub(super) panels: &'a [[f32; LANES]],
    /// Sums of a tile for each panel, between slices.
    pub(super) partial: &'a mut [[f32; LANES]],
    /// The rows of `x` and the weight rows.
    pub(super) rows: Range<usize>,
    pub(super) outputs: Range<usize>,
}

impl<F: Factors, const R: usize, const C: usize, const X: bool> Kernel for Pass<'_, F, R, C, X> {
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
