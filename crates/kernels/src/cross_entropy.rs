//! Cross-entropy of next-token logits, with z-loss (Chowdhery et al., "PaLM", 2022): `ce + z log(Z)^2` per row, where
//! `log Z` is the logarithm of the softmax's denominator.

use std::ops::{AddAssign, Range};

use crate::Threads;
use crate::simd::{dispatch, exp_sum, maximum};

/// What the target of each row weighs, in the sums and in the derivative. A row of weight 0 does not count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RowWeights<'a> {
    /// All rows alike.
    All(f32),
    /// One weight for each row.
    Each(&'a [f32]),
}

impl<'a> RowWeights<'a> {
    fn of(self, row: usize) -> f32 {
        match self {
            Self::All(weight) => weight,
            Self::Each(weights) => weights[row],
        }
    }

    /// The weights of the rows in `range`.
    ///
    /// # Panics
    /// If there are fewer rows.
    pub fn rows(self, range: Range<usize>) -> Self {
        match self {
            Self::All(weight) => Self::All(weight),
            Self::Each(weights) => Self::Each(&weights[range]),
        }
    }
}

/// Weighted sums over the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossSums {
    /// Sum of `log Z - logit of the target`, in nats.
    pub cross_entropy: f64,
    /// Sum of `(log Z)^2`.
    pub squared_log_partition: f64,
    /// Rows that count.
    pub rows: usize,
}

impl AddAssign for LossSums {
    fn add_assign(&mut self, other: Self) {
        self.cross_entropy += other.cross_entropy;
        self.squared_log_partition += other.squared_log_partition;
        self.rows += other.rows;
    }
}

/// Loss of `logits`, `[targets.len(), vocabulary]`, which are overwritten.
///
/// # Panics
/// If a target that counts is not below the vocabulary's size, or there are fewer weights than targets.
pub fn forward(threads: &Threads, logits: &mut [f32], targets: &[u32], weights: RowWeights<'_>) -> LossSums {
    sum_rows(threads, logits, targets, |row, logits| match weights.of(row) {
        0.0 => LossSums::default(),
        weight => Losses::of(logits, targets[row]).weighted(weight),
    })
}

/// Logarithm of the probability of each row's target, in nats, into `out`; `logits`, `[targets.len(), vocabulary]`, are
/// overwritten.
///
/// # Panics
/// If a target is not below the vocabulary's size, or `out` is not as long as `targets`.
pub fn log_probabilities(threads: &Threads, out: &mut [f64], logits: &mut [f32], targets: &[u32]) {
    assert_eq!(out.len(), targets.len(), "a number for each target");
    let vocabulary = logits.len() / targets.len().max(1);
    threads.for_each_chunk2((logits, vocabulary), (out, 1), |row, logits, out| {
        out[0] = -Losses::of(logits, targets[row]).cross_entropy;
    });
}

/// What a row of logits says as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Row {
    /// Logarithm of the softmax's denominator: a logit less this is the logarithm of its probability, in nats.
    pub log_partition: f64,
    /// The most probable token; of equal ones the first.
    pub argmax: usize,
}

impl Row {
    /// Whether there is a distribution: neither infinity nor what is no number among the logits.
    pub fn is_finite(&self) -> bool {
        self.log_partition.is_finite()
    }
}

/// What each row of `logits`, `[rows, vocabulary]`, says as a whole.
pub fn rows(threads: &Threads, logits: &[f32], vocabulary: usize) -> Vec<Row> {
    let mut rows = vec![Row::default(); logits.len() / vocabulary.max(1)];
    threads.for_each_chunk(&mut rows, 1, |index, row| {
        let mut exponentials = logits[index * vocabulary..][..vocabulary].to_vec();
        let largest = dispatch(
            #[inline(always)]
            || maximum(&exponentials),
        );
        let argmax = exponentials.iter().position(|&logit| logit == largest).unwrap_or_default();
        // Where one logit is no number, neither is the sum.
        row[0] = Row { log_partition: Losses::of(&mut exponentials, argmax as u32).log_partition, argmax };
    });
    rows
}

/// The same as [`forward`], and replaces `logits` by the derivative of `scale * weight * (ce + z_weight * log(Z)^2)` of each
/// row, which is zero for rows that do not count.
///
/// # Panics
/// As [`forward`].
pub fn forward_backward(
    threads: &Threads,
    logits: &mut [f32],
    targets: &[u32],
    weights: RowWeights<'_>,
    z_weight: f32,
    scale: f32,
) -> LossSums {
    sum_rows(threads, logits, targets, |row, logits| {
        let weight = weights.of(row);
        if weight == 0.0 {
            logits.fill(0.0);
            return LossSums::default();
        }
        let (target, scale) = (targets[row], scale * weight);
        let found = Losses::of(logits, target);
        // `logits` holds exponentials now: divided by their sum they are the probabilities.
        let factor = scale * (1.0 + 2.0 * z_weight * found.log_partition as f32) / found.total;
        dispatch(
            #[inline(always)]
            || {
                for x in logits.iter_mut() {
                    *x *= factor;
                }
            },
        );
        logits[target as usize] -= scale;
        found.weighted(weight)
    })
}

/// Adds up what `task` gives for each row of `logits`.
fn sum_rows(
    threads: &Threads,
    logits: &mut [f32],
    targets: &[u32],
    task: impl Fn(usize, &mut [f32]) -> LossSums + Sync,
) -> LossSums {
    let vocabulary = logits.len() / targets.len().max(1);
    let mut rows = vec![LossSums::default(); targets.len()];
    threads.for_each_chunk2((logits, vocabulary), (&mut rows, 1), |row, logits, sums| sums[0] = task(row, logits));
    let mut sums = LossSums::default();
    rows.iter().for_each(|&row| sums += row);
    sums
}

/// The loss of one row.
struct Losses {
    cross_entropy: f64,
    log_partition: f64,
    /// Sum of the exponentials, relative to the largest logit.
    total: f32,
}

impl Losses {
    /// The loss of `logits`, in whose place their exponentials come, relative to the largest.
    fn of(logits: &mut [f32], target: u32) -> Self {
        let target_logit = logits[target as usize];
        let (largest, total) = dispatch(
            #[inline(always)]
            || {
                let largest = maximum(logits);
                (largest, exp_sum(logits, largest))
            },
        );
        let log_partition = f64::from(largest) + f64::from(total).ln();
        Self { cross_entropy: log_partition - f64::from(target_logit), log_partition, total }
    }

    fn weighted(&self, weight: f32) -> LossSums {
        let weight = f64::from(weight);
        LossSums {
            cross_entropy: weight * self.cross_entropy,
            squared_log_partition: weight * self.log_partition * self.log_partition,
            rows: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::check::{assert_close, assert_derivative, values, wide};

    /// `weight (ce + z log(Z)^2)` of each row.
    fn reference(logits: &[f64], targets: &[u32], weights: &[f32], z_weight: f64) -> Vec<f64> {
        let rows = logits.chunks(logits.len() / targets.len()).zip(targets).zip(weights);
        rows.map(|((row, &target), &weight)| {
            let log_partition = row.iter().map(|x| x.exp()).sum::<f64>().ln();
            f64::from(weight) * (log_partition - row[target as usize] + z_weight * log_partition * log_partition)
        })
        .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn losses_and_derivatives_equal_the_plain_ones(rows in 1usize..20, vocabulary in 2usize..90, kind in 0..3) {
            let logits: Vec<f32> = values(rows * vocabulary, 0.1).iter().map(|x| 5.0 * x).collect();
            let targets: Vec<u32> = (0..rows).map(|i| (i * 7 % vocabulary) as u32).collect();
            let each: Vec<f32> = match kind {
                0 => vec![1.0; rows],
                1 => targets.iter().map(|&target| f32::from(u8::from(target != targets[0]))).collect(),
                // As preferences have them: of either sign, and some of 0.
                _ => (0..rows).map(|i| (i % 5) as f32 * 0.5 - 1.0).collect(),
            };
            let weights = if kind == 0 { RowWeights::All(1.0) } else { RowWeights::Each(&each) };
            let run = |count| {
                let threads = Threads::new(count);
                let mut gradient = logits.clone();
                let sums = forward_backward(&threads, &mut gradient, &targets, weights, 0.01, 0.25);
                let mut alone = vec![0.0; rows];
                log_probabilities(&threads, &mut alone, &mut logits.clone(), &targets);
                (forward(&threads, &mut logits.clone(), &targets, weights), sums, gradient, alone)
            };
            let (sums, again, gradient, alone) = run(1);
            prop_assert_eq!((sums, &gradient, &alone), (again, &run(3).2, &run(3).3));
            prop_assert_eq!(sums, run(3).0);
            prop_assert_eq!(sums.rows, each.iter().filter(|&&weight| weight != 0.0).count());
            let plain = reference(&wide(&logits), &targets, &each, 0.01);
            let (total, size) = (plain.iter().sum::<f64>(), plain.iter().map(|x| x.abs()).sum::<f64>());
            let found = sums.cross_entropy + 0.01 * sums.squared_log_partition;
            prop_assert!((found - total).abs() < 1e-5 * (1.0 + size), "{found} instead of {total}");
            let dout = vec![0.25; rows];
            assert_derivative(&gradient, &dout, &logits, |x| reference(x, &targets, &each, 0.01), 1e-5);
            for (found, plain) in alone.iter().zip(reference(&wide(&logits), &targets, &vec![1.0; rows], 0.0)) {
                prop_assert!((found + plain).abs() < 1e-5 * (1.0 + plain), "{found} instead of {}", -plain);
            }
        }
    }

    #[test]
    fn rows_know_their_sum_and_their_largest() {
        let logits: Vec<f32> = values(3 * 37, 0.4);
        let found = rows(&Threads::new(2), &logits, 37);
        for (row, logits) in found.iter().zip(logits.chunks(37)) {
            let partition = wide(logits).iter().map(|x| x.exp()).sum::<f64>().ln();
            assert!(row.is_finite() && (row.log_partition - partition).abs() < 1e-5);
            assert!(logits.iter().all(|&x| x <= logits[row.argmax]));
        }
        assert_eq!(rows(&Threads::single(), &[1.0, 2.0, 2.0], 3)[0].argmax, 1);
        for odd in [f32::NAN, f32::INFINITY] {
            assert!(!rows(&Threads::single(), &[1.0, odd, 0.0], 3)[0].is_finite(), "{odd}");
        }
        assert!(!rows(&Threads::single(), &[f32::NEG_INFINITY; 2], 2)[0].is_finite());
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let mut logits = vec![1e4, -1e4, 9990.0];
        let sums = forward_backward(&Threads::single(), &mut logits, &[2], RowWeights::All(1.0), 0.0, 1.0);
        assert!((sums.cross_entropy - 10.000_045).abs() < 1e-3);
        assert_close(&logits, &[0.999_954_6, 0.0, -0.999_954_6], 1e-6);
    }
}
