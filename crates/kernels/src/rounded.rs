//! Products of matrices whose factors are rounded to `bf16` on the way, with sums in `f32`: a linear layer and both its derivatives.
//!
//! ```text
//! y = x W^T        dx = dy (W^T)^T        dW = dy^T (x^T)^T
//! ```
//!
//! All three are inner products along rows, once what stands across is transposed while it is rounded; that costs little beside
//! the products.
//!
//! Products are added up by pairs of columns, as the instruction for it (`vdpbf16ps`) has it: the second of a pair first, each sum
//! rounded once, what is below the normal numbers taken for zero. The results are the same to the bit on any processor; without
//! the instruction they come slowly ([`limits::bf16_peak`](crate::limits::bf16_peak) tells).

use half::bf16;

use crate::inner::product_of_pairs;
use crate::lanes::{Half, Kernel, LANES, Lanes, dispatch};
use crate::linear;
use crate::precision::{self, Stored};
use crate::{Matrix, Threads};

/// In which numbers factors are multiplied; sums are `f32` always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Products {
    /// As they are, or widened to `f32`.
    #[default]
    F32,
    /// Rounded to `bf16`, where weights are `f32`, `f16` or `bf16`.
    BF16,
}

impl Products {
    /// `BF16` where this processor multiplies them so much faster that rounding pays
    /// ([`limits::bf16_is_faster`](crate::limits::bf16_is_faster)).
    pub fn fastest(threads: &Threads) -> Self {
        // Nothing is measured in WebAssembly, which has no instruction for them.
        #[cfg(not(target_family = "wasm"))]
        if crate::limits::bf16_is_faster(threads) {
            return Self::BF16;
        }
        #[cfg(target_family = "wasm")]
        let _ = threads;
        Self::F32
    }
}

/// Factors, rounded.
#[derive(Default)]
pub struct Buffers {
    a: Vec<bf16>,
    b: Vec<bf16>,
}

impl Buffers {
    /// `weight` rounded, for several products with it, in the memory that each of them would round it in: to be given back by
    /// [`Buffers::put_back`].
    pub fn take_rounded(&mut self, threads: &Threads, weight: &[f32]) -> Vec<bf16> {
        let mut rounded = std::mem::take(&mut self.b);
        round(threads, &mut rounded, weight);
        rounded
    }

    /// `weight`, `[outputs, inputs]`, rounded and transposed, for several [`backward_input_across`]; as
    /// [`Buffers::take_rounded`].
    pub fn take_across(&mut self, threads: &Threads, weight: &[f32], inputs: usize) -> Vec<bf16> {
        let mut across = std::mem::take(&mut self.b);
        round_across(threads, &mut across, weight, inputs);
        across
    }

    /// Takes memory back.
    pub fn put_back(&mut self, rounded: Vec<bf16>) {
        self.b = rounded;
    }
}

/// `out[n, o] (+)= sum over i of x[n, i] weight[o, i]`; adds if `accumulate`.
///
/// `x` is `[N, inputs]`, `weight` `[outputs, inputs]`, `out` `[N, outputs]`. Quantised weights are
/// multiplied as [`linear::forward`] does.
pub fn forward(
    threads: &Threads,
    out: &mut [f32],
    x: &[f32],
    weight: Matrix<'_>,
    inputs: usize,
    accumulate: bool,
    buffers: &mut Buffers,
) {
    match weight {
        Matrix::F32(weight) => {
            let rounded = buffers.take_rounded(threads, weight);
            forward_half(threads, out, x, &mut buffers.a, &rounded, inputs, accumulate);
            buffers.put_back(rounded);
        }
        Matrix::F16(weight) => forward_half(threads, out, x, &mut buffers.a, weight, inputs, accumulate),
        Matrix::BF16(weight) => forward_half(threads, out, x, &mut buffers.a, weight, inputs, accumulate),
        Matrix::Joined(parts) => {
            linear::by_parts(out, x.len() / inputs, parts, inputs, accumulate, |out, part, accumulate| {
                forward(threads, out, x, part, inputs, accumulate, buffers);
            });
        }
        _ => linear::forward(threads, out, x, weight, inputs, accumulate),
    }
}

/// [`forward`] with weights of sixteen bits, which are not copied; `x` is rounded in `buffer`.
fn forward_half<T: Half>(
    threads: &Threads,
    out: &mut [f32],
    x: &[f32],
    buffer: &mut Vec<bf16>,
    weight: &[T],
    inputs: usize,
    accumulate: bool,
) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    assert_eq!(x.len(), rows * inputs, "x is not [N, {inputs}]");
    assert_eq!(out.len(), rows * outputs, "out is not [{rows}, {outputs}]");
    round(threads, buffer, x);
    product_of_pairs(threads, out, buffer, weight, inputs, accumulate);
}

/// The derivative by the input: `dx[n, i] (+)= sum over o of dout[n, o] weight[o, i]`; adds if `accumulate`.
///
/// `dout` is `[N, outputs]`, `weight` `[outputs, inputs]`, `dx` `[N, inputs]`.
pub fn backward_input(
    threads: &Threads,
    dx: &mut [f32],
    dout: &[f32],
    weight: &[f32],
    inputs: usize,
    accumulate: bool,
    buffers: &mut Buffers,
) {
    let across = buffers.take_across(threads, weight, inputs);
    backward_input_across(threads, dx, dout, &across, inputs, accumulate, buffers);
    buffers.put_back(across);
}

/// [`backward_input`] with the weights as [`Buffers::take_across`] gives them, `[inputs, outputs]`.
pub fn backward_input_across(
    threads: &Threads,
    dx: &mut [f32],
    dout: &[f32],
    across: &[bf16],
    inputs: usize,
    accumulate: bool,
    buffers: &mut Buffers,
) {
    let (rows, outputs) = (dx.len() / inputs, across.len() / inputs);
    assert_eq!(dout.len(), rows * outputs, "dout is not [{rows}, {outputs}]");
    round(threads, &mut buffers.a, dout);
    product_of_pairs(threads, dx, &buffers.a, across, outputs, accumulate);
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
    buffers: &mut Buffers,
) {
    let (rows, outputs) = (x.len() / inputs, dweight.len() / inputs);
    assert_eq!(dout.len(), rows * outputs, "dout is not [{rows}, {outputs}]");
    let Buffers { a, b } = buffers;
    round_across(threads, a, dout, outputs);
    round_across(threads, b, x, inputs);
    product_of_pairs(threads, dweight, a, b, rows, accumulate);
}

fn round(threads: &Threads, target: &mut Vec<bf16>, x: &[f32]) {
    target.resize(x.len(), bf16::ZERO);
    precision::round(threads, target, x);
}

/// `x`, `[rows, columns]`, rounded and transposed, `[columns, rows]`.
fn round_across(threads: &Threads, target: &mut Vec<bf16>, x: &[f32], columns: usize) {
    let rows = x.len() / columns;
    target.resize(x.len(), bf16::ZERO);
    // A few columns of all rows are a task, whose reads and writes are runs of sixteen.
    threads.for_each_chunk(target, LANES * rows.max(1), |task, target| {
        dispatch(Across { target, x, first: task * LANES, rows, columns });
    });
}

/// The columns from `first` on that fill `target`.
struct Across<'a> {
    target: &'a mut [bf16],
    x: &'a [f32],
    first: usize,
    rows: usize,
    columns: usize,
}

impl Kernel for Across<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { target, x, first, rows, columns } = self;
        let width = target.len() / rows;
        for row in (0..rows).step_by(LANES) {
            let count = LANES.min(rows - row);
            let mut square = [lanes.splat(0.0); LANES];
            for (i, vector) in square.iter_mut().enumerate().take(count) {
                let source = &x[(row + i) * columns + first..][..width];
                *vector = match source.as_array() {
                    Some(source) => lanes.load(source),
                    None => {
                        let mut padded = [0.0; LANES];
                        padded[..width].copy_from_slice(source);
                        lanes.load(&padded)
                    }
                };
            }
            let square = lanes.transpose(square);
            for (target, column) in target.chunks_exact_mut(rows).zip(square) {
                let column = lanes.to_array(column).map(<bf16 as Stored>::round);
                target[row..row + count].copy_from_slice(&column[..count]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::check::values;

    fn rounded(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| f64::from(bf16::from_f32(x).to_f32())).collect()
    }

    fn assert_near(found: &[f32], expected: impl Fn(usize) -> f64, depth: usize) {
        for (i, &found) in found.iter().enumerate() {
            let expected = expected(i);
            assert!((f64::from(found) - expected).abs() < 2e-7 * (depth + 20) as f64, "{i}: {found}, not {expected}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn all_three_are_the_products_of_rounded_factors(rows in 1usize..50, outputs in 1usize..60, inputs in 1usize..70) {
            let (x, w, d) = (values(rows * inputs, 0.1), values(outputs * inputs, 0.2), values(rows * outputs, 0.3));
            let (x64, w64, d64) = (rounded(&x), rounded(&w), rounded(&d));
            let run = |count| {
                let (threads, mut buffers) = (Threads::new(count), Buffers::default());
                let (mut out, mut dx, mut dw) = (vec![1.0; d.len()], vec![f32::NAN; x.len()], vec![2.0; w.len()]);
                forward(&threads, &mut out, &x, Matrix::F32(&w), inputs, true, &mut buffers);
                backward_input(&threads, &mut dx, &d, &w, inputs, false, &mut buffers);
                backward_weight(&threads, &mut dw, &d, &x, inputs, true, &mut buffers);
                // Rounded once for several products, the same.
                let (mut out_again, mut dx_again) = (vec![1.0; d.len()], vec![f32::NAN; x.len()]);
                let rounded = buffers.take_rounded(&threads, &w);
                forward(&threads, &mut out_again, &x, Matrix::BF16(&rounded), inputs, true, &mut buffers);
                buffers.put_back(rounded);
                let across = buffers.take_across(&threads, &w, inputs);
                backward_input_across(&threads, &mut dx_again, &d, &across, inputs, false, &mut buffers);
                assert_eq!((&out_again, &dx_again), (&out, &dx));
                (out, dx, dw)
            };
            let (out, dx, dw) = run(1);
            let sum = |count: usize, term: &dyn Fn(usize) -> f64| (0..count).map(term).sum::<f64>();
            let product = |i: usize| sum(inputs, &|k| x64[i / outputs * inputs + k] * w64[i % outputs * inputs + k]);
            assert_near(&out, |i| 1.0 + product(i), inputs);
            assert_near(&dx, |i| sum(outputs, &|o| d64[i / inputs * outputs + o] * w64[o * inputs + i % inputs]), outputs);
            let by_weight = |i: usize| sum(rows, &|n| d64[n * outputs + i / inputs] * x64[n * inputs + i % inputs]);
            assert_near(&dw, |i| 2.0 + by_weight(i), rows);
            prop_assert_eq!((out, dx, dw), run(3));
        }
    }
}
