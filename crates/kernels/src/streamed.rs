//! Products of a few rows with weights that are read once, in order, and widened in registers: the speed of memory is the
//! limit.

use crate::Threads;
use crate::lanes::{Element, Job, LANES, Lanes, dispatch, reduce};
use crate::threads::Chunks;

/// Weight rows whose sums are in registers at a time: a piece of `x` is loaded once for all of them.
const BLOCK: usize = 4;
/// Weight rows in a task.
const TASK_ROWS: usize = 8 * BLOCK;

/// `out[n, o] (+)= sum over i of x[n, i] weight[o, i]`, with `x` `[N, inputs]`, `weight` `[outputs, inputs]`, `out`
/// `[N, outputs]`.
pub(crate) fn product<T: Element>(
    threads: &Threads,
    out: &mut [f32],
    x: &[f32],
    weight: &[T],
    inputs: usize,
    accumulate: bool,
) {
    let outputs = weight.len() / inputs;
    let out = Chunks::new(out, 1);
    threads.run(outputs.div_ceil(TASK_ROWS), |task| {
        let first = task * TASK_ROWS;
        let last = outputs.min(first + TASK_ROWS);
        dispatch(Task { out: &out, outputs, x, weight: &weight[first * inputs..last * inputs], first, inputs, accumulate });
    });
}

/// Some weight rows, `first` the first of them, with all rows of `x`.
struct Task<'a, T> {
    out: &'a Chunks<f32>,
    outputs: usize,
    x: &'a [f32],
    weight: &'a [T],
    first: usize,
    inputs: usize,
    accumulate: bool,
}

impl<T: Element> Job for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let blocks = self.weight.chunks_exact(BLOCK * self.inputs);
        let rest = blocks.remainder().chunks_exact(self.inputs);
        let first_of_rest = self.first + blocks.len() * BLOCK;
        for (block, weights) in blocks.enumerate() {
            self.rows::<L, BLOCK>(lanes, weights, self.first + block * BLOCK);
        }
        for (row, weights) in rest.enumerate() {
            self.rows::<L, 1>(lanes, weights, first_of_rest + row);
        }
    }
}

impl<T: Element> Task<'_, T> {
    /// Products of all rows of `x` with `ROWS` weight rows, `output` the first of them.
    #[inline(always)]
    fn rows<L: Lanes, const ROWS: usize>(&self, lanes: L, weights: &[T], output: usize) {
        for (row, x) in self.x.chunks_exact(self.inputs).enumerate() {
            let sums = dots::<L, T, ROWS>(lanes, weights, x);
            // SAFETY: each weight row belongs to one task, which alone writes that column of `out`.
            let target = unsafe { self.out.slice(row * self.outputs + output, ROWS) };
            for (target, sum) in target.iter_mut().zip(sums) {
                *target = if self.accumulate { *target + sum } else { sum };
            }
        }
    }
}

/// Inner products of `x` with each of `ROWS` weight rows, `[ROWS, x.len()]`, in the order of [`crate::simd::dot`].
#[inline(always)]
fn dots<L: Lanes, T: Element, const ROWS: usize>(lanes: L, weights: &[T], x: &[f32]) -> [f32; ROWS] {
    let (x, x_rest) = x.as_chunks::<LANES>();
    let inputs = weights.len() / ROWS;
    let rows: [_; ROWS] = std::array::from_fn(|row| weights[row * inputs..][..inputs].as_chunks::<LANES>());
    let mut sums = [lanes.splat(0.0); ROWS];
    for (i, x) in x.iter().enumerate() {
        let x = lanes.load(x);
        for row in 0..ROWS {
            sums[row] = lanes.mul_add(T::load(lanes, &rows[row].0[i]), x, sums[row]);
        }
    }
    if !x_rest.is_empty() {
        let x = lanes.load(&padded(x_rest));
        for row in 0..ROWS {
            sums[row] = lanes.mul_add(T::load(lanes, &padded(rows[row].1)), x, sums[row]);
        }
    }
    sums.map(|sum| reduce(lanes.to_array(sum)))
}

/// What is left of a row, with zeros behind it.
#[inline(always)]
fn padded<T: Element>(rest: &[T]) -> [T; LANES] {
    let mut padded = [T::zeroed(); LANES];
    padded[..rest.len()].copy_from_slice(rest);
    padded
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::check::{assert_close, values, wide};
    use crate::lanes::with_each;

    #[derive(Clone)]
    struct Dots<'a, T>(&'a [T], &'a [f32]);

    impl<T: Element> Job for Dots<'_, T> {
        type Output = [u32; 3];

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> [u32; 3] {
            dots::<L, T, 3>(lanes, self.0, self.1).map(f32::to_bits)
        }
    }

    fn assert_alike<T: Element>(weights: &[T], x: &[f32]) {
        let outputs = with_each(&Dots(weights, x));
        for (name, output) in &outputs {
            assert_eq!(output, &outputs[0].1, "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_instruction_set_gives_the_bits_of_the_plain_code(inputs in 1usize..100) {
            let (weights, x) = (values(3 * inputs, 0.1), values(inputs, 0.2));
            assert_alike(&weights, &x);
            assert_alike(&weights.iter().map(|&w| f16::from_f32(w)).collect::<Vec<_>>(), &x);
            assert_alike(&weights.iter().map(|&w| bf16::from_f32(w)).collect::<Vec<_>>(), &x);
        }

        #[test]
        fn every_weight_row_meets_every_row_of_x(rows in 1usize..5, outputs in 1usize..80, inputs in 1usize..70) {
            let (x, weights) = (values(rows * inputs, 0.1), values(outputs * inputs, 0.2));
            let (x64, weights64) = (wide(&x), wide(&weights));
            let product = |row: usize, output: usize| -> f64 {
                (0..inputs).map(|i| x64[row * inputs + i] * weights64[output * inputs + i]).sum()
            };
            let expected: Vec<f64> = (0..rows * outputs).map(|i| product(i / outputs, i % outputs)).collect();
            let mut out = vec![f32::NAN; rows * outputs];
            super::product(&Threads::new(2), &mut out, &x, &weights, inputs, false);
            assert_close(&out, &expected, 1e-5);
            super::product(&Threads::single(), &mut out, &x, &weights, inputs, true);
            assert_close(&out, &expected.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), 1e-5);
        }
    }
}
