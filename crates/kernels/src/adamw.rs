//! AdamW (Loshchilov and Hutter 2019), in the arithmetic of `torch.optim.AdamW`.

use crate::Threads;
use crate::precision::Stored;
use crate::simd::dispatch;

/// Elements in a task.
const TASK_ELEMENTS: usize = 16 * 1024;

/// Settings of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Step size.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay; the weights shrink by `learning_rate * weight_decay`.
    pub weight_decay: f32,
    /// Number of the step, counted from 1.
    pub step: u64,
    /// What the gradients are multiplied by.
    pub gradient_scale: f32,
}

/// Updates `weights` and their first and second `moments` from `gradients`.
///
/// ```text
/// w *= 1 - lr wd    m += (1 - b1)(g - m)    v = b2 v + (1 - b2) g^2
/// w -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
/// ```
pub fn step<M: Stored>(
    threads: &Threads,
    weights: &mut [f32],
    gradients: &[f32],
    [first_moments, second_moments]: [&mut [M]; 2],
    options: &AdamW,
) {
    let AdamW { learning_rate, beta1, beta2, eps, weight_decay, step, gradient_scale } = *options;
    assert!(weights.len() == gradients.len() && weights.len() == first_moments.len(), "lengths differ");
    // Powers in f64, as PyTorch's scalars are.
    let power = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
    let step_size = (f64::from(learning_rate) / power(beta1)) as f32;
    let root = power(beta2).sqrt() as f32;
    let keep = 1.0 - learning_rate * weight_decay;
    let first = crate::threads::Chunks::new(first_moments, TASK_ELEMENTS);
    threads.for_each_chunk2((weights, TASK_ELEMENTS), (second_moments, TASK_ELEMENTS), |task, weights, second| {
        let start = task * TASK_ELEMENTS;
        let gradients = &gradients[start..start + weights.len()];
        // SAFETY: each task has a range of its own.
        let first = unsafe { first.slice(start, weights.len()) };
        dispatch(
            #[inline(always)]
            || {
                for (((w, &g), first), second) in weights.iter_mut().zip(gradients).zip(first).zip(second) {
                    let (g, m, v) = (g * gradient_scale, first.widen(), second.widen());
                    let m = (1.0 - beta1).mul_add(g - m, m);
                    let v = ((1.0 - beta2) * g).mul_add(g, beta2 * v);
                    let denominator = v.sqrt() / root + eps;
                    *w = *w * keep - step_size * m / denominator;
                    (*first, *second) = (M::round(m), M::round(v));
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::check::values;

    /// The weights after ten steps.
    fn run<M: Stored>(threads: usize, count: usize) -> Vec<f32> {
        let threads = Threads::new(threads);
        let (mut w, mut m, mut v) = (values(count, 0.1), vec![M::default(); count], vec![M::default(); count]);
        for t in 1..=10 {
            let options = AdamW { step: t, ..OPTIONS };
            step(&threads, &mut w, &values(count, t as f32), [&mut m, &mut v], &options);
        }
        w
    }

    const OPTIONS: AdamW = AdamW {
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 1,
        gradient_scale: 0.5,
    };

    #[test]
    fn many_steps_follow_the_formula() {
        let count = TASK_ELEMENTS + 37;
        let (found, rounded) = (run::<f32>(1, count), run::<bf16>(1, count));
        assert_eq!(found, run::<f32>(3, count));
        for i in [0, 1, 100, TASK_ELEMENTS, count - 1] {
            let (mut w, mut m, mut v) = (f64::from(values(count, 0.1)[i]), 0.0, 0.0);
            for t in 1..=10 {
                let g = 0.5 * f64::from(values(count, t as f32)[i]);
                m = 0.9 * m + 0.1 * g;
                v = 0.95 * v + 0.05 * g * g;
                let (first, second) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.95f64.powi(t)));
                w = w * (1.0 - 0.01 * 0.1) - 0.01 * first / (second.sqrt() + 1e-8);
            }
            assert!((f64::from(found[i]) - w).abs() < 1e-6, "weight {i}: {} instead of {w}", found[i]);
            // Ten steps of at most 0.01, each with moments that are right to some thousandths.
            assert!((f64::from(rounded[i]) - w).abs() < 1e-3, "weight {i}: {} instead of {w}", rounded[i]);
        }
    }
}
