//! Linear layers without bias, `y = x W^T`, and their derivatives.

use std::cell::RefCell;

use crate::cache_line::{CacheLine, reserve};
use crate::gemm::{Product, View, gemm};
use crate::inner;
use crate::input::Input;
use crate::integer;
use crate::{Matrix, RowParts, Threads};

/// Most elements of quantised weights that are widened at a time.
const SLAB_LENGTH: usize = 1 << 20;
/// They are a multiple of so many rows, if their length allows: whole slices of a product.
const SLAB_ROWS: usize = 256;

thread_local! {
    /// Rows of quantised weights, widened.
    static SLAB: RefCell<Vec<CacheLine>> = const { RefCell::new(Vec::new()) };
    /// What one part of a joined matrix gives.
    static PART: RefCell<Vec<CacheLine>> = const { RefCell::new(Vec::new()) };
}

/// `out[n, o] (+)= sum over i of x[n, i] weight[o, i]`; adds if `accumulate`, as a residual connection does.
///
/// `x` is `[N, inputs]`, `weight` `[outputs, inputs]`, `out` `[N, outputs]`; weights of fewer bits are widened to `f32`, but
/// for packed ones: they are multiplied as integers, and `x` is rounded to 8 bits in groups of 32 columns.
pub fn forward(threads: &Threads, out: &mut [f32], x: &[f32], weight: Matrix<'_>, inputs: usize, accumulate: bool) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    assert_eq!(x.len(), rows * inputs, "x is not [N, {inputs}]");
    assert_eq!(out.len(), rows * outputs, "out is not [{rows}, {outputs}]");
    match weight {
        Matrix::Packed(weight) => integer::product(threads, out, Input::Rows { x, inputs }, weight, accumulate),
        Matrix::Joined(parts) => {
            by_parts(out, x.len() / inputs, parts, inputs, accumulate, |out, part, accumulate| {
                forward(threads, out, x, part, inputs, accumulate);
            });
        }
        _ => inner::product(threads, out, x, weight, inputs, accumulate),
    }
}

/// The product of `rows` rows with a joined matrix, of which `product` gives (or adds) those with one part at a time: a row's
/// results are those that each part gives alone.
pub(crate) fn by_parts(
    out: &mut [f32],
    rows: usize,
    parts: &dyn RowParts,
    inputs: usize,
    accumulate: bool,
    mut product: impl FnMut(&mut [f32], Matrix<'_>, bool),
) {
    let outputs = out.len() / rows.max(1);
    for (before, part) in parts.placed() {
        let (first, width) = (before / inputs, part.len() / inputs);
        if rows == 1 {
            product(&mut out[first..first + width], part, accumulate);
            continue;
        }
        PART.with_borrow_mut(|buffer| {
            let results: &mut [f32] = reserve(buffer, rows * width);
            product(results, part, false);
            for (out, result) in out.chunks_exact_mut(outputs).zip(results.chunks_exact(width)) {
                let out = &mut out[first..first + width];
                match accumulate {
                    true => out.iter_mut().zip(result).for_each(|(out, result)| *out += result),
                    false => out.copy_from_slice(result),
                }
            }
        });
    }
}

/// [`forward`] of an input that is computed on the way: row by row as it is rounded where the weights are packed, otherwise
/// in `buffer`. The results are the same to the bit as with the operation before it done apart.
pub fn forward_fused(
    threads: &Threads,
    out: &mut [f32],
    input: Input<'_>,
    buffer: &mut Vec<f32>,
    weight: Matrix<'_>,
    accumulate: bool,
) {
    match weight {
        Matrix::Packed(weight) => integer::product(threads, out, input, weight, accumulate),
        _ => {
            let (_, inputs) = input.shape();
            forward(threads, out, input.rows(threads, buffer), weight, inputs, accumulate);
        }
    }
}

/// The derivative by the input: `dx[n, i] (+)= sum over o of dout[n, o] weight[o, i]`; adds if `accumulate`.
///
/// `dout` is `[N, outputs]`, `weight` `[outputs, inputs]`, `dx` `[N, inputs]`.
/// Quantised weights are widened some rows at a time.
pub fn backward_input(
    threads: &Threads,
    dx: &mut [f32],
    dout: &[f32],
    weight: Matrix<'_>,
    inputs: usize,
    accumulate: bool,
) {
    let (rows, outputs) = (dx.len() / inputs, weight.len() / inputs);
    assert_eq!(dout.len(), rows * outputs, "dout is not [{rows}, {outputs}]");
    if matches!(weight, Matrix::F32(_) | Matrix::F16(_) | Matrix::BF16(_)) {
        let (a, b) = (View::rows(dout, outputs), View::rows(weight, inputs));
        return gemm(threads, dx, inputs, Product { m: rows, n: inputs, k: outputs, a, b, accumulate });
    }
    SLAB.with_borrow_mut(|slab| {
        let slab_rows = (SLAB_LENGTH / inputs / SLAB_ROWS * SLAB_ROWS).max(SLAB_ROWS);
        for first in (0..outputs).step_by(slab_rows) {
            let count = slab_rows.min(outputs - first);
            let slab: &mut [f32] = reserve(slab, count * inputs);
            threads.for_each_chunk(slab, inputs, |row, values| {
                weight.widen_as_multiplied((first + row) * inputs, values);
            });
            let (a, b) = (View::rows(&dout[first..], outputs), View::rows(Matrix::F32(slab), inputs));
            let accumulate = accumulate || first > 0;
            gemm(threads, dx, inputs, Product { m: rows, n: inputs, k: count, a, b, accumulate });
        }
    });
}

/// The derivative by the weight: `dweight[o, i] (+)= sum over n of dout[n, o] x[n, i]`; adds if `accumulate`.
///
/// `dout` is `[N, outputs]`, `x` `[N, inputs]`, `dweight` `[outputs, inputs]`.
pub fn backward_weight(
    threads: &Threads,
    dweight: &mut [f32],
    dout: &[f32],
    x: &[f32],
    inputs: usize,
    accumulate: bool,
) {
    let (rows, outputs) = (x.len() / inputs, dweight.len() / inputs);
    assert_eq!(dout.len(), rows * outputs, "dout is not [{rows}, {outputs}]");
    let (a, b) = (View::rows(dout, outputs).transposed(), View::rows(Matrix::F32(x), inputs));
    gemm(threads, dweight, inputs, Product { m: outputs, n: inputs, k: rows, a, b, accumulate });
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::Packed;
    use crate::quant::{Affine, AffineFormat, BlockFormat, Blocks, Scales, quantise_affine};

    fn values(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| ((i as f32 + seed) * 1.618).sin()).collect()
    }

    /// `sum over k of a(i, k) b(k, j)` in f64.
    fn reference(
        m: usize,
        n: usize,
        k: usize,
        a: impl Fn(usize, usize) -> f32,
        b: impl Fn(usize, usize) -> f32,
    ) -> Vec<f32> {
        let element = |i, j| (0..k).map(|p| f64::from(a(i, p)) * f64::from(b(p, j))).sum::<f64>() as f32;
        (0..m * n).map(|e| element(e / n, e % n)).collect()
    }

    fn assert_close(found: &[f32], expected: &[f32], k: usize) {
        let tolerance = 1e-6 * (k as f32 + 10.0);
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= tolerance, "element {i}: {a} instead of {b}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn products_equal_the_plain_sums(rows in 1usize..40, outputs in 1usize..70, inputs in 1usize..300, count in 1usize..4) {
            let threads = Threads::new(count);
            let (x, w, dout) = (values(rows * inputs, 0.1), values(outputs * inputs, 0.2), values(rows * outputs, 0.3));
            let (x_at, w_at) = (|n: usize, i: usize| x[n * inputs + i], |o: usize, i: usize| w[o * inputs + i]);
            let dout_at = |n: usize, o: usize| dout[n * outputs + o];

            let mut out = vec![f32::NAN; rows * outputs];
            forward(&threads, &mut out, &x, Matrix::F32(&w), inputs, false);
            let mut expected = reference(rows, outputs, inputs, x_at, |k, o| w_at(o, k));
            assert_close(&out, &expected, inputs);
            forward(&threads, &mut out, &x, Matrix::F32(&w), inputs, true);
            expected.iter_mut().for_each(|x| *x *= 2.0);
            assert_close(&out, &expected, inputs);

            let mut dx = vec![1.0; rows * inputs];
            backward_input(&threads, &mut dx, &dout, Matrix::F32(&w), inputs, true);
            let mut expected = reference(rows, inputs, outputs, dout_at, w_at);
            expected.iter_mut().for_each(|x| *x += 1.0);
            assert_close(&dx, &expected, outputs);
            backward_input(&threads, &mut dx, &dout, Matrix::F32(&w), inputs, false);
            expected.iter_mut().for_each(|x| *x -= 1.0);
            assert_close(&dx, &expected, outputs);

            let mut dw = vec![2.0; outputs * inputs];
            backward_weight(&threads, &mut dw, &dout, &x, inputs, true);
            let mut expected = reference(outputs, inputs, rows, |o, n| dout_at(n, o), x_at);
            expected.iter_mut().for_each(|x| *x += 2.0);
            assert_close(&dw, &expected, rows);
            backward_weight(&threads, &mut dw, &dout, &x, inputs, false);
            expected.iter_mut().for_each(|x| *x -= 2.0);
            assert_close(&dw, &expected, rows);
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let (rows, outputs, inputs) = (130, 700, 600);
        let (x, w) = (values(rows * inputs, 0.1), values(outputs * inputs, 0.2));
        let run = |count| {
            let mut out = vec![0.0; rows * outputs];
            forward(&Threads::new(count), &mut out, &x, Matrix::F32(&w), inputs, false);
            out
        };
        assert_eq!(run(1), run(2));
        assert_eq!(run(1), run(5));
        assert_close(
            &run(1),
            &reference(rows, outputs, inputs, |n, i| x[n * inputs + i], |i, o| w[o * inputs + i]),
            inputs,
        );
    }

    #[test]
    fn the_derivative_goes_through_quantised_weights_as_through_their_widened_values() {
        let threads = Threads::new(2);
        // More than a slab of rows, and not a whole one more.
        let (rows, inputs) = (9, 512);
        let outputs = SLAB_LENGTH / inputs + 100;
        let weights = values(outputs * inputs, 0.7);
        let dout = values(rows * outputs, 0.8);
        let check = |name: &str, weight: Matrix<'_>, accumulate: bool| {
            let run = |weight| {
                let mut dx = values(rows * inputs, 0.9);
                backward_input(&threads, &mut dx, &dout, weight, inputs, accumulate);
                dx
            };
            let mut buffer = vec![0.0; weight.len()];
            let wide = weight.widened(0, weight.len(), &mut buffer);
            assert_eq!(run(weight), run(Matrix::F32(wide)), "{name}");
        };
        for format in [BlockFormat::Q4_0, BlockFormat::Q6_K] {
            let mut bytes = vec![0; format.bytes_of(weights.len()).unwrap()];
            format.quantise(&weights, &mut bytes);
            let blocks = Matrix::Blocks(Blocks { format, bytes: &bytes });
            let packed = Packed::new(&threads, blocks, inputs).unwrap().unwrap();
            check("blocks", blocks, false);
            check("blocks, added", blocks, true);
            check("packed", Matrix::Packed(&packed), false);
        }
        let format = AffineFormat::new(4, 64).unwrap();
        let mut numbers = vec![0; format.bytes_of(weights.len())];
        let (scales, biases): (Vec<_>, Vec<_>) = quantise_affine(&weights, format, &mut numbers).into_iter().unzip();
        let (scales, biases) = (Scales::F32(&scales), Scales::F32(&biases));
        let affine = Matrix::Affine(Affine { format, numbers: &numbers, scales, biases });
        check("affine", affine, true);
    }

    #[test]
    fn sixteen_bit_weights_give_the_product_of_their_widened_values() {
        let threads = Threads::new(2);
        let (outputs, inputs) = (45, 300);
        let half: Vec<f16> = values(outputs * inputs, 0.4).into_iter().map(f16::from_f32).collect();
        let brain: Vec<bf16> = values(outputs * inputs, 0.5).into_iter().map(bf16::from_f32).collect();
        for rows in [1, 4, 5, 30] {
            let x = values(rows * inputs, 0.6);
            let run = |weight| {
                let mut out = vec![0.0; rows * outputs];
                forward(&threads, &mut out, &x, weight, inputs, false);
                out
            };
            let wide: Vec<f32> = half.iter().map(|x| x.to_f32()).collect();
            assert_eq!(run(Matrix::F16(&half)), run(Matrix::F32(&wide)));
            let wide: Vec<f32> = brain.iter().map(|x| x.to_f32()).collect();
            assert_eq!(run(Matrix::BF16(&brain)), run(Matrix::F32(&wide)));
        }
    }
}
