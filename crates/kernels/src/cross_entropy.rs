//! Cross-entropy of next-token logits, with z-loss (Chowdhery et al., "PaLM", 2022): `ce + z log(Z)^2` per row, where
//! `log Z` is the logarithm of the softmax's denominator.

use std::ops::AddAssign;

use crate::Threads;
use crate::simd::{dispatch, exp_sum, maximum};

/// Sums over the rows that count; divide by `valid` for means.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossSums {
    /// Sum of `log Z - logit of the target`, in nats.
    pub cross_entropy: f64,
    /// Sum of `(log Z)^2`.
    pub squared_log_partition: f64,
    /// Rows that count.
    pub valid: usize,
}

impl LossSums {
    /// Mean cross-entropy in nats per row that counts; no number where none does.
    pub fn mean(&self) -> f64 {
        self.cross_entropy / self.valid as f64
    }
}

impl AddAssign for LossSums {
    fn add_assign(&mut self, other: Self) {
        self.cross_entropy += other.cross_entropy;
        self.squared_log_partition += other.squared_log_partition;
        self.valid += other.valid;
    }
}

/// Loss of `logits`, `[targets.len(), vocabulary]`. Rows whose target is `ignore` do not count.
///
/// # Panics
/// If a target that counts is not below the vocabulary's size.
pub fn forward(threads: &Threads, logits: &[f32], targets: &[u32], ignore: Option<u32>) -> LossSums {
    let vocabulary = logits.len() / targets.len().max(1);
    let mut rows = vec![LossSums::default(); targets.len()];
    threads.for_each_chunk(&mut rows, 1, |row, sums| {
        if Some(targets[row]) != ignore {
            let mut buffer = logits[row * vocabulary..][..vocabulary].to_vec();
            sums[0] = row_forward(&mut buffer, targets[row]).0;
        }
    });
    add_up(&rows)
}

/// The same, and replaces `logits` by the derivative of `scale * (ce + z_weight * log(Z)^2)` of each row, which is zero
/// for rows that do not count.
///
/// # Panics
/// If a target that counts is not below the vocabulary's size.
pub fn forward_backward(
    threads: &Threads,
    logits: &mut [f32],
    targets: &[u32],
    ignore: Option<u32>,
    z_weight: f32,
    scale: f32,
) -> LossSums {
    let vocabulary = logits.len() / targets.len().max(1);
    let mut rows = vec![LossSums::default(); targets.len()];
    threads.for_each_chunk2((logits, vocabulary), (&mut rows, 1), |row, logits, sums| {
        let target = targets[row];
        if Some(target) == ignore {
            return logits.fill(0.0);
        }
        let (loss, log_partition, total) = row_forward(logits, target);
        sums[0] = loss;
        // `logits` holds exponentials now: divided by their sum they are the probabilities.
        let factor = scale * (1.0 + 2.0 * z_weight * log_partition) / total;
        dispatch(
            #[inline(always)]
            || {
                for x in logits.iter_mut() {
                    *x *= factor;
                }
            },
        );
        logits[target as usize] -= scale;
    });
    add_up(&rows)
}

/// The loss of one row, its `log Z`, and the sum of the exponentials (relative to the maximum) that replace the logits.
fn row_forward(logits: &mut [f32], target: u32) -> (LossSums, f32, f32) {
    let target_logit = logits[target as usize];
    let (largest, total) = dispatch(
        #[inline(always)]
        || {
            let largest = maximum(logits);
            (largest, exp_sum(logits, largest))
        },
    );
    let log_partition = f64::from(largest) + f64::from(total).ln();
    let sums = LossSums {
        cross_entropy: log_partition - f64::from(target_logit),
        squared_log_partition: log_partition * log_partition,
        valid: 1,
    };
    (sums, log_partition as f32, total)
}

fn add_up(rows: &[LossSums]) -> LossSums {
    let mut sums = LossSums::default();
    rows.iter().for_each(|&row| sums += row);
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::check::{assert_close, assert_derivative, values, wide};

    /// `ce + z log(Z)^2` of each row that counts, 0 of the others.
    fn reference(logits: &[f64], targets: &[u32], ignore: Option<u32>, z_weight: f64) -> Vec<f64> {
        let rows = logits.chunks(logits.len() / targets.len()).zip(targets);
        rows.map(|(row, &target)| {
            let log_partition = row.iter().map(|x| x.exp()).sum::<f64>().ln();
            let loss = log_partition - row[target as usize] + z_weight * log_partition * log_partition;
            if Some(target) == ignore { 0.0 } else { loss }
        })
        .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn losses_and_derivatives_equal_the_plain_ones(rows in 1usize..20, vocabulary in 2usize..90, some in any::<bool>()) {
            let logits: Vec<f32> = values(rows * vocabulary, 0.1).iter().map(|x| 5.0 * x).collect();
            let targets: Vec<u32> = (0..rows).map(|i| (i * 7 % vocabulary) as u32).collect();
            let ignore = some.then_some(targets[0]);
            let run = |count| {
                let threads = Threads::new(count);
                let mut gradient = logits.clone();
                let sums = forward_backward(&threads, &mut gradient, &targets, ignore, 0.01, 0.25);
                (forward(&threads, &logits, &targets, ignore), sums, gradient)
            };
            let (sums, again, gradient) = run(1);
            prop_assert_eq!((sums, &gradient), (again, &run(3).2));
            prop_assert_eq!(sums, run(3).0);
            prop_assert_eq!(sums.valid, targets.iter().filter(|&&t| Some(t) != ignore).count());
            let total: f64 = reference(&wide(&logits), &targets, ignore, 0.01).iter().sum();
            let found = sums.cross_entropy + 0.01 * sums.squared_log_partition;
            prop_assert!((found - total).abs() < 1e-5 * (1.0 + total), "{found} instead of {total}");
            let dout = vec![0.25; rows];
            assert_derivative(&gradient, &dout, &logits, |x| reference(x, &targets, ignore, 0.01), 1e-5);
        }
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let mut logits = vec![1e4, -1e4, 9990.0];
        let sums = forward_backward(&Threads::single(), &mut logits, &[2], None, 0.0, 1.0);
        assert!((sums.cross_entropy - 10.000_045).abs() < 1e-3);
        assert_close(&logits, &[0.999_954_6, 0.0, -0.999_954_6], 1e-6);
    }
}
