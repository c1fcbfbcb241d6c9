//! Products of small matrices that lie in the first caches: nothing is packed.

use crate::lanes::{Element, LANES, Lanes};

/// Rows whose sums are held in registers together.
pub(super) const ROWS: usize = 4;

/// A matrix seen through strides.
#[derive(Clone, Copy)]
pub(super) struct Strided<'a> {
    pub(super) data: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Strided<'a> {
    pub(super) fn rows(data: &'a [f32], stride: usize) -> Self {
        Self { data, row_stride: stride, column_stride: 1 }
    }

    pub(super) fn columns(data: &'a [f32], stride: usize) -> Self {
        Self { data, row_stride: 1, column_stride: stride }
    }
}

/// `out[r, :] (+)= sum over k of a[r, k] b[k, :]`; adds if `ADD`.
///
/// `b` and `out` have rows of `width` elements, a multiple of [`LANES`]; their lengths say how many.
#[inline(always)]
pub(super) fn multiply<L: Lanes, const ADD: bool>(lanes: L, out: &mut [f32], a: Strided<'_>, b: &[f32], width: usize) {
    let vectors = width / LANES;
    let (out, b) = (out.as_chunks_mut::<LANES>().0, b.as_chunks::<LANES>().0);
    let rows = out.len() / vectors;
    for first in (0..rows).step_by(ROWS) {
        let out = &mut out[first * vectors..];
        if rows - first >= ROWS {
            multiply_rows::<L, f32, ADD, ROWS>(lanes, out, first, a, b, vectors);
        } else {
            for row in first..rows {
                multiply_rows::<L, f32, ADD, 1>(lanes, &mut out[(row - first) * vectors..], row, a, b, vectors);
            }
        }
    }
}

/// The `R` rows of [`multiply`] from `first` on, at the beginning of `out`; `out` and `b` have rows of `vectors` vectors.
#[inline(always)]
pub(super) fn multiply_rows<L: Lanes, T: Element, const ADD: bool, const R: usize>(
    lanes: L,
    out: &mut [[f32; LANES]],
    first: usize,
    a: Strided<'_>,
    b: &[[T; LANES]],
    vectors: usize,
) {
    let mut vector = 0;
    while vector < vectors {
        if L::WIDE_TILES && vectors - vector >= 4 {
            multiply_tile::<L, T, ADD, R, 4>(lanes, out, first, a, b, vectors, vector);
            vector += 4;
        } else {
            multiply_tile::<L, T, ADD, R, 1>(lanes, out, first, a, b, vectors, vector);
            vector += 1;
        }
    }
}

/// `R` rows and the `V` vectors from `vector` on.
#[inline(always)]
fn multiply_tile<L: Lanes, T: Element, const ADD: bool, const R: usize, const V: usize>(
    lanes: L,
    out: &mut [[f32; LANES]],
    first: usize,
    a: Strided<'_>,
    b: &[[T; LANES]],
    vectors: usize,
    vector: usize,
) {
    let mut sums = [[lanes.splat(0.0); V]; R];
    if ADD {
        sums = std::array::from_fn(|r| std::array::from_fn(|v| lanes.load(&out[r * vectors + vector + v])));
    }
    for (k, b) in b.chunks_exact(vectors).enumerate() {
        let b: [_; V] = std::array::from_fn(|v| T::load(lanes, &b[vector + v]));
        for (r, sums) in sums.iter_mut().enumerate() {
            let a = lanes.splat(a.data[(first + r) * a.row_stride + k * a.column_stride]);
            for (sum, &b) in sums.iter_mut().zip(&b) {
                *sum = lanes.mul_add(a, b, *sum);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            out[r * vectors + vector + v] = lanes.to_array(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::values;
    use crate::lanes::{Kernel, with_each};

    #[derive(Clone)]
    struct Both<'a> {
        a: &'a [f32],
        b: &'a [f32],
        rows: usize,
        width: usize,
    }

    impl Kernel for Both<'_> {
        type Output = Vec<f32>;

        /// `a b`, and added to that `a^T` seen as another matrix, times `b`.
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Vec<f32> {
            let Self { a, b, rows, width } = self;
            let mut out = vec![f32::NAN; rows * width];
            multiply::<L, false>(lanes, &mut out, Strided::rows(a, a.len() / rows), b, width);
            multiply::<L, true>(lanes, &mut out, Strided::columns(a, rows), b, width);
            out
        }
    }

    #[test]
    fn every_instruction_set_gives_the_plain_sums() {
        for (rows, depth, width) in [(1, 1, 16), (4, 7, 16), (7, 64, 80), (64, 5, 64)] {
            let (a, b) = (values(rows * depth, 0.1), values(depth * width, 0.2));
            let outputs = with_each(&Both { a: &a, b: &b, rows, width });
            for (row, found) in outputs[0].1.chunks(width).enumerate() {
                for (column, &found) in found.iter().enumerate() {
                    let a = |k: usize| f64::from(a[row * depth + k]) + f64::from(a[k * rows + row]);
                    let sum: f64 = (0..depth).map(|k| a(k) * f64::from(b[k * width + column])).sum();
                    assert!((f64::from(found) - sum).abs() < 1e-4, "[{row}, {column}] is {found} instead of {sum}");
                }
            }
            for (name, output) in &outputs[1..] {
                assert_eq!(output, &outputs[0].1, "{name}, {rows} x {depth} x {width}");
            }
        }
    }
}
