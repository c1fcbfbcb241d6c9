//! Products of a few rows with weights that are read once, in order, and widened in registers: the speed of memory is the
//! limit.

use crate::Threads;
use crate::lanes::{Element, Job, LANES, Lanes, dispatch, reduce};
use crate::threads::Chunks;

/// Weight rows that are read side by side: a piece of `x` is loaded once for all of them.
const STREAMS: usize = 4;
/// Weight rows in a task. The streams of a task are as far apart as possible, each reading on for many rows: the prefetcher
/// of the processor loses streams that meet in a page.
const TASK_ROWS: usize = 16 * STREAMS;

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
        dispatch(Task {
            out: &out,
            outputs,
            x,
            weight: &weight[first * inputs..last * inputs],
            first,
            inputs,
            accumulate,
        });
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
        let rows = self.weight.len() / self.inputs;
        let length = rows / STREAMS;
        for i in 0..length {
            self.rows(lanes, std::array::from_fn::<_, STREAMS, _>(|stream| stream * length + i));
        }
        for i in STREAMS * length..rows {
            self.rows(lanes, [i]);
        }
    }
}

impl<T: Element> Task<'_, T> {
    /// Products of all rows of `x` with some weight rows of the task.
    #[inline(always)]
    fn rows<L: Lanes, const ROWS: usize>(&self, lanes: L, rows: [usize; ROWS]) {
        let weights = rows.map(|row| &self.weight[row * self.inputs..][..self.inputs]);
        for (n, x) in self.x.chunks_exact(self.inputs).enumerate() {
            for (row, sum) in rows.into_iter().zip(dots(lanes, weights, x)) {
                // SAFETY: each weight row belongs to one task, which alone writes that column of `out`.
                let target = unsafe { self.out.slice(n * self.outputs + self.first + row, 1) };
                target[0] = if self.accumulate { target[0] + sum } else { sum };
            }
        }
    }
}

/// Inner products of `x` with each of the weight rows, which are as long, in the order of [`crate::simd::dot`].
#[inline(always)]
fn dots<L: Lanes, T: Element, const ROWS: usize>(lanes: L, weights: [&[T]; ROWS], x: &[f32]) -> [f32; ROWS] {
    let (x, x_rest) = x.as_chunks::<LANES>();
    let rests = weights.map(|row| &row[x.len() * LANES..]);
    let weights = weights.map(|row| &row.as_chunks::<LANES>().0[..x.len()]);
    let mut sums = [lanes.splat(0.0); ROWS];
    for (i, x) in x.iter().enumerate() {
        let x = lanes.load(x);
        for row in 0..ROWS {
            sums[row] = lanes.mul_add(T::load(lanes, &weights[row][i]), x, sums[row]);
        }
    }
    if !x_rest.is_empty() {
        let x = lanes.load(&padded(x_rest));
        for row in 0..ROWS {
            sums[row] = lanes.mul_add(T::load(lanes, &padded(rests[row])), x, sums[row]);
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
    struct Dot<'a, T>(&'a [T], &'a [f32]);

    impl<T: Element> Job for Dot<'_, T> {
        type Output = u32;

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> u32 {
            let [sum] = dots(lanes, [self.0], self.1);
            sum.to_bits()
        }
    }

    fn assert_alike<T: Element>(weights: &[T], x: &[f32]) {
        let outputs = with_each(&Dot(weights, x));
        for (name, output) in &outputs[1..] {
            assert_eq!(output, &outputs[0].1, "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_instruction_set_gives_the_bits_of_the_plain_code(inputs in 1usize..300) {
            let (weights, x) = (values(inputs, 0.1), values(inputs, 0.2));
            assert_alike(&weights, &x);
            assert_alike(&weights.iter().map(|&w| f16::from_f32(w)).collect::<Vec<_>>(), &x);
            assert_alike(&weights.iter().map(|&w| bf16::from_f32(w)).collect::<Vec<_>>(), &x);
        }

        #[test]
        fn every_weight_row_meets_every_row_of_x(rows in 1usize..5, outputs in 1usize..150, inputs in 1usize..70) {
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
