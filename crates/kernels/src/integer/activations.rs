//! RoundedRows rounded to 8 bits, with a scale for each 32 columns.
//!
//! Rows go together in tiles, as many as a kernel takes at a time; a tile is a sequence of records, one per step of 32
//! columns, so that a kernel walks along one pointer:
//!
//! ```text
//! record, in words of 32 bits      (T rows, the last tile filled up with zeros; P scales of the weights per step)
//!   8 T   rounded values, four bytes a word, row by row; or, in pairs, two words of a row, the same two of the next, and so on
//!   P T   corrections: where the sum of products begins, so that it ends as if the weights' zero were 0
//!     T   scales (f32): what the rounded values are multiplied with
//!     T   sums (f32): of the rounded values, times the scale; the weights' minima are multiplied with them
//! ```

use std::cell::RefCell;
use std::ops::Range;

use super::lanes::LANES;
use super::layout::STEP;
use super::packed::Packed;
use crate::simd::dispatch;
use crate::{Input, Threads};

thread_local! {
    /// A row that is computed on the way.
    static ROW: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Words of a row's rounded values in a record.
const NUMBERS: usize = STEP / 4;

/// Sizes of the records, known when a kernel is compiled.
pub(super) struct Record<const ROWS: usize, const PARTS: usize>;

impl<const ROWS: usize, const PARTS: usize> Record<ROWS, PARTS> {
    pub const CORRECTIONS: usize = NUMBERS * ROWS;
    pub const SCALES: usize = Self::CORRECTIONS + PARTS * ROWS;
    pub const SUMS: usize = Self::SCALES + ROWS;
    pub const WORDS: usize = Self::SUMS + ROWS;
}

/// How rows go together.
#[derive(Clone, Copy)]
pub(super) struct Grouping {
    /// Rows of a tile; even if they are in pairs.
    pub rows: usize,
    /// Whether the values of two rows alternate: see [`Tile::Paired`](super::lanes::Tile).
    pub paired: bool,
}

/// Rows of activations in tiles.
#[derive(Default)]
pub(super) struct RoundedRows {
    words: Vec<i32>,
    /// Words of a tile.
    tile: usize,
    rows: usize,
}

impl RoundedRows {
    /// Rounds `input` for products with `weight`. `offset` is what a kernel takes from the weights' numbers.
    pub fn quantise(&mut self, threads: &Threads, input: Input<'_>, weight: &Packed, tile: Grouping, offset: i32) {
        let Grouping { rows: rows_of_tile, paired } = tile;
        let parts = weight.parts();
        (self.rows, _) = input.shape();
        let record = (NUMBERS + parts + 2) * rows_of_tile;
        self.tile = record * weight.steps();
        self.words.resize(self.rows.div_ceil(rows_of_tile) * self.tile, 0);
        let rounding = Rounding { rows_of_tile, paired, parts, factor: offset - weight.zero };
        let tile = |index: usize, words: &mut [i32]| {
            let first = index * rows_of_tile;
            let rows = first..self.rows.min(first + rows_of_tile);
            ROW.with_borrow_mut(|buffer| {
                dispatch(
                    #[inline(always)]
                    || rounding.tile(input, rows, buffer, words, record),
                );
            });
        };
        if self.words.len() == self.tile {
            // Sharing one row out among threads would cost more than the row.
            return tile(0, &mut self.words);
        }
        threads.for_each_chunk(&mut self.words, self.tile, tile);
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The records of tile `index`.
    pub fn tile(&self, index: usize) -> &[i32] {
        &self.words[index * self.tile..][..self.tile]
    }
}

#[derive(Clone, Copy)]
struct Rounding {
    rows_of_tile: usize,
    paired: bool,
    parts: usize,
    /// The sum of the rounded values times this is the correction.
    factor: i32,
}

impl Rounding {
    /// Writes the records of a tile; rows and columns that are not there become zeros.
    #[inline(always)]
    fn tile(self, input: Input<'_>, rows: Range<usize>, buffer: &mut Vec<f32>, words: &mut [i32], record: usize) {
        let Self { rows_of_tile, paired, parts, factor } = self;
        let corrections = NUMBERS * rows_of_tile;
        let scales = corrections + parts * rows_of_tile;
        if rows.len() < rows_of_tile {
            words.fill(0);
        }
        for (row, index) in rows.enumerate() {
            let (whole, rest) = input.row(index, buffer).as_chunks::<STEP>();
            let mut last = [0.0; STEP];
            last[..rest.len()].copy_from_slice(rest);
            let steps = whole.iter().chain(std::iter::once(&last)).chain(std::iter::repeat(&[0.0; STEP]));
            for (x, record) in steps.zip(words.chunks_exact_mut(record)) {
                let mut numbers = [0; NUMBERS];
                let (scale, sums) = round_step(x, bytemuck::cast_slice_mut(&mut numbers));
                if paired {
                    let pair = record[row / 2 * 2 * NUMBERS..].as_chunks_mut::<4>().0;
                    for (words, numbers) in pair.iter_mut().zip(numbers.as_chunks::<2>().0) {
                        words[row % 2 * 2..][..2].copy_from_slice(numbers);
                    }
                } else {
                    record[NUMBERS * row..][..NUMBERS].copy_from_slice(&numbers);
                }
                record[scales + row] = scale.to_bits() as i32;
                record[scales + rows_of_tile + row] = (scale * (sums[0] + sums[1]) as f32).to_bits() as i32;
                match parts {
                    1 => record[corrections + row] = factor * (sums[0] + sums[1]),
                    _ => (0..2).for_each(|part| record[corrections + 2 * row + part] = factor * sums[part]),
                }
            }
        }
    }
}

/// Rounds 32 values (half to even); gives the scale, and the sums of the first and the last 16 of the rounded values.
#[inline(always)]
fn round_step(x: &[f32; STEP], numbers: &mut [i8]) -> (f32, [i32; 2]) {
    /// Adding 1.5 * 2^23 leaves the rounded integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// What is smaller throughout is zero: its inverse would overflow.
    const LEAST: f32 = 1e-30;
    let halves = x.as_chunks::<LANES>().0;
    let mut largest = [0.0f32; LANES];
    for half in halves {
        for i in 0..LANES {
            largest[i] = if half[i].abs() > largest[i] { half[i].abs() } else { largest[i] };
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            largest[i] = if largest[i + width] > largest[i] { largest[i + width] } else { largest[i] };
        }
        width /= 2;
    }
    let inverse = if largest[0] > LEAST { 127.0 / largest[0] } else { 0.0 };
    let mut sums = [0; 2];
    for ((half, numbers), sum) in halves.iter().zip(numbers.chunks_exact_mut(LANES)).zip(&mut sums) {
        let mut rounded = [0i32; LANES];
        for i in 0..LANES {
            rounded[i] = (half[i] * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
            numbers[i] = rounded[i] as i8;
        }
        *sum = rounded.iter().sum();
    }
    (largest[0] / 127.0, sums)
}
