//! The harness's bootstrap: standard errors of what has no closed form.

use openelm_kernels::Threads;

use super::aggregate::{deviation, mean};
use crate::python::random::Random;

/// Samples that the harness draws.
pub const BOOTSTRAP: usize = 100_000;

/// Samples that one generator draws; each batch has its number as seed.
const BATCH: usize = 1000;

/// The standard error of `statistic` of the mean of `values`: its deviation over `samples` samples with replacement, drawn as the
/// harness draws them from Python's generators.
pub fn bootstrap(values: &[f64], statistic: fn(f64) -> f64, samples: usize, threads: &Threads) -> f64 {
    let mut found = vec![0.0; samples / BATCH.min(samples) * BATCH.min(samples)];
    threads.for_each_chunk(&mut found, BATCH.min(samples), |batch, found| {
        let mut random = Random::new(batch as u32);
        let count = values.len() as f64;
        let mut drawn = vec![0.0; values.len()];
        for found in found {
            drawn.iter_mut().for_each(|drawn| *drawn = values[(random.unit() * count) as usize]);
            *found = statistic(mean(&drawn));
        }
    });
    deviation(&found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bootstrap_stderr(perplexity, xs, iters=3000)` of lm-evaluation-harness 0.4.13.
    #[test]
    fn samples_are_those_of_the_harness() {
        let values: Vec<f64> = (0..17).map(|i| -f64::from(i * i % 7) / 3.0).collect();
        for threads in [1, 3] {
            let found = bootstrap(&values, |mean| (-mean).exp(), 3000, &Threads::new(threads));
            assert!((found - EXPECTED).abs() < 1e-9, "{found}");
        }
    }

    const EXPECTED: f64 = 0.2324773894126403;
}
