//! The non-linearity of the feed-forward network: SwiGLU (Shazeer 2020), or a plain activation.

use crate::Threads;
use crate::simd::{LANES, dispatch, exp, sigmoid};

/// Rows in a task.
const TASK_ROWS: usize = 16;

/// The activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`, also called SiLU.
    Swish,
    /// `x * Phi(x)` with the normal distribution function, not its tanh approximation.
    Gelu,
}

impl Activation {
    /// Value and derivative at `x`.
    #[inline(always)]
    fn at(self, x: f32) -> (f32, f32) {
        match self {
            Activation::Swish => {
                let s = sigmoid(x);
                (x * s, s * x.mul_add(1.0 - s, 1.0))
            }
            Activation::Gelu => {
                let phi = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
                let density = 0.398_942_3 * exp(-0.5 * x * x);
                (x * phi, x.mul_add(density, phi))
            }
        }
    }
}

/// The error function to 2e-7, without branches (Abramowitz and Stegun 7.1.26 has 1.5e-7 in exact arithmetic).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    (1.0 - p * exp(-a * a)).copysign(x)
}

/// What stands between the two matrices of a feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedForward {
    /// The activation function.
    pub activation: Activation,
    /// Whether there is a gate.
    pub gated: bool,
    /// Width of the outcome.
    pub inner: usize,
}

impl FeedForward {
    /// Width of what comes in: gate, then up, or one of them.
    pub fn hidden_dim(&self) -> usize {
        if self.gated { 2 * self.inner } else { self.inner }
    }
}

/// `out[n, i] = act(hidden[n, i]) * hidden[n, inner + i]` if `gated`, else `act(hidden[n, i])`.
///
/// `out` is `[N, inner]`; `hidden` is `[N, 2 * inner]`, gate then up, or `[N, inner]` without a gate.
pub fn forward(threads: &Threads, out: &mut [f32], hidden: &[f32], network: FeedForward) {
    let (FeedForward { activation, gated, inner }, width) = (network, network.hidden_dim());
    assert_eq!(out.len() / inner * width, hidden.len(), "hidden does not fit out");
    threads.for_each_chunk(out, inner * TASK_ROWS, |task, out| {
        let hidden = &hidden[task * TASK_ROWS * width..];
        dispatch(
            #[inline(always)]
            || {
                for (out, hidden) in out.chunks_exact_mut(inner).zip(hidden.chunks_exact(width)) {
                    gate(out, hidden, activation, gated);
                }
            },
        );
    });
}

/// One row of [`forward`].
#[inline(always)]
pub(crate) fn gate(out: &mut [f32], hidden: &[f32], activation: Activation, gated: bool) {
    let (gate, up) = hidden.split_at(out.len());
    match (activation, gated) {
        (Activation::Swish, true) => row::<true>(out, gate, up, |x| Activation::Swish.at(x).0),
        (Activation::Gelu, true) => row::<true>(out, gate, up, |x| Activation::Gelu.at(x).0),
        (Activation::Swish, false) => row::<false>(out, gate, gate, |x| Activation::Swish.at(x).0),
        (Activation::Gelu, false) => row::<false>(out, gate, gate, |x| Activation::Gelu.at(x).0),
    }
}

#[inline(always)]
fn row<const GATED: bool>(out: &mut [f32], gate: &[f32], up: &[f32], activation: impl Fn(f32) -> f32) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = activation(gate) * if GATED { up } else { 1.0 };
    }
}

/// Writes the derivative of [`forward`] by `hidden` to `dhidden`, of the same shape, and what `forward` gave, computed anew,
/// to `out`; `dout` and `out` are `[N, inner]`.
pub fn backward(
    threads: &Threads,
    dhidden: &mut [f32],
    out: &mut [f32],
    dout: &[f32],
    hidden: &[f32],
    network: FeedForward,
) {
    let (FeedForward { activation, gated, inner }, width) = (network, network.hidden_dim());
    assert_eq!(dhidden.len(), hidden.len(), "dhidden does not fit hidden");
    assert_eq!(dout.len() / inner * width, hidden.len(), "dout does not fit hidden");
    assert_eq!(out.len(), dout.len(), "out does not fit dout");
    threads.for_each_chunk2((dhidden, width * TASK_ROWS), (out, inner * TASK_ROWS), |task, dhidden, out| {
        let first = task * TASK_ROWS;
        let given = dout[first * inner..].chunks_exact(inner).zip(hidden[first * width..].chunks_exact(width));
        dispatch(
            #[inline(always)]
            || {
                for ((dhidden, out), (dout, hidden)) in
                    dhidden.chunks_exact_mut(width).zip(out.chunks_exact_mut(inner)).zip(given)
                {
                    match activation {
                        Activation::Swish => {
                            row_backward(dhidden, out, dout, hidden, gated, |x| Activation::Swish.at(x));
                        }
                        Activation::Gelu => {
                            row_backward(dhidden, out, dout, hidden, gated, |x| Activation::Gelu.at(x));
                        }
                    }
                }
            },
        );
    });
}

#[inline(always)]
fn row_backward(
    dhidden: &mut [f32],
    out: &mut [f32],
    dout: &[f32],
    hidden: &[f32],
    gated: bool,
    at: impl Fn(f32) -> (f32, f32),
) {
    let inner = dout.len();
    let (gate, up) = hidden.split_at(inner);
    let (dgate, dup) = dhidden.split_at_mut(inner);
    // Slices of the vectors' length: the compiler does not vectorise a loop over this many slices of any length.
    let mut first = 0;
    while first < inner {
        let here = first..inner.min(first + LANES);
        let (mut values, mut slopes) = ([0.0; LANES], [0.0; LANES]);
        let gates = load(&gate[here.clone()]);
        for i in 0..LANES {
            (values[i], slopes[i]) = at(gates[i]);
        }
        let d = load(&dout[here.clone()]);
        if gated {
            let ups = load(&up[here.clone()]);
            store(&mut dgate[here.clone()], std::array::from_fn(|i| d[i] * ups[i] * slopes[i]));
            store(&mut dup[here.clone()], std::array::from_fn(|i| d[i] * values[i]));
            store(&mut out[here], std::array::from_fn(|i| values[i] * ups[i]));
        } else {
            store(&mut dgate[here.clone()], std::array::from_fn(|i| d[i] * slopes[i]));
            store(&mut out[here], values);
        }
        first += LANES;
    }
}

/// At most [`LANES`] elements, with zeros behind them.
#[inline(always)]
fn load(source: &[f32]) -> [f32; LANES] {
    match source.as_array() {
        Some(whole) => *whole,
        None => std::array::from_fn(|i| source.get(i).copied().unwrap_or(0.0)),
    }
}

/// Writes as many elements as `target` has.
#[inline(always)]
fn store(target: &mut [f32], values: [f32; LANES]) {
    match target.as_mut_array() {
        Some(whole) => *whole = values,
        None => target.copy_from_slice(&values[..target.len()]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::check::{assert_close, assert_derivative, values, wide};

    /// The error function by its Taylor series, exact to f64 for the arguments here.
    fn erf_series(x: f64) -> f64 {
        let mut term = x;
        let mut sum = x;
        for n in 1..80 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    fn reference(hidden: &[f64], activation: Activation, gated: bool, inner: usize) -> Vec<f64> {
        let act = |x: f64| match activation {
            Activation::Swish => x / (1.0 + (-x).exp()),
            Activation::Gelu => x * 0.5 * (1.0 + erf_series(x / 2f64.sqrt())),
        };
        let rows = hidden.chunks(if gated { 2 * inner } else { inner });
        rows.flat_map(|row| (0..inner).map(move |i| act(row[i]) * if gated { row[inner + i] } else { 1.0 })).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn rows_and_derivatives_equal_the_plain_ones(rows in 1usize..40, inner in 1usize..50, gated in any::<bool>(), gelu in any::<bool>()) {
            let activation = if gelu { Activation::Gelu } else { Activation::Swish };
            let hidden: Vec<f32> = values(rows * inner * if gated { 2 } else { 1 }, 0.1).iter().map(|x| 3.0 * x).collect();
            let dout = values(rows * inner, 0.2);
            let run = |count| {
                let threads = Threads::new(count);
                let (mut out, mut dhidden) = (vec![f32::NAN; dout.len()], vec![f32::NAN; hidden.len()]);
                let mut again = out.clone();
                let network = FeedForward { activation, gated, inner };
                forward(&threads, &mut out, &hidden, network);
                backward(&threads, &mut dhidden, &mut again, &dout, &hidden, network);
                assert_eq!(out, again);
                (out, dhidden)
            };
            let (out, dhidden) = run(1);
            prop_assert_eq!((&out, &dhidden), (&run(3).0, &run(3).1));
            assert_close(&out, &reference(&wide(&hidden), activation, gated, inner), 1e-6);
            assert_derivative(&dhidden, &dout, &hidden, |h| reference(h, activation, gated, inner), 1e-5);
        }
    }
}
