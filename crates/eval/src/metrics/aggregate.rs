//! Scores: of all documents of a task, and of the members of a group.

use serde::{Deserialize, Serialize};

use super::{BOOTSTRAP, Metric, Value, bootstrap};
use openelm_kernels::Threads;

/// A score with its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The score.
    pub value: f64,
    /// Its standard error; `None` where there is no estimate.
    pub stderr: Option<f64>,
    /// What guessing gives; `None` where that cannot be said.
    pub chance: Option<f64>,
}

impl Score {
    /// The score that `values` of a task's documents make. A mean has the closed standard error, a perplexity that of the harness's
    /// bootstrap.
    pub fn of(metric: Metric, values: &[Value], chance: Option<f64>, threads: &Threads) -> Self {
        let numbers: Vec<f64> = values
            .iter()
            .map(|value| match *value {
                Value::Number(number) | Value::Weighted(number, _) => number,
            })
            .collect();
        let weight: u64 =
            values.iter().map(|value| if let Value::Weighted(_, weight) = *value { weight } else { 0 }).sum();
        let per_unit = || numbers.iter().sum::<f64>() / weight as f64;
        let several = numbers.len() > 1;
        let (value, stderr) = match metric {
            Metric::Perplexity => {
                (perplexity(mean(&numbers)), several.then(|| bootstrap(&numbers, perplexity, BOOTSTRAP, threads)))
            }
            Metric::WordPerplexity | Metric::BytePerplexity => (perplexity(per_unit()), None),
            Metric::BitsPerByte => (-per_unit() / std::f64::consts::LN_2, None),
            _ => (mean(&numbers), several.then(|| deviation(&numbers) / (numbers.len() as f64).sqrt())),
        };
        Self { value, stderr, chance }
    }
}

fn perplexity(mean: f64) -> f64 {
    (-mean).exp()
}

/// The mean of `values`.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard deviation of a sample.
pub(crate) fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    (values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (values.len() as f64 - 1.0)).sqrt()
}

/// The mean of `scores`, each of which counts alike. Their errors are independent.
pub fn mean_of_members(scores: &[Score]) -> Score {
    let count = scores.len() as f64;
    let sum = |of: &dyn Fn(&Score) -> Option<f64>| scores.iter().map(of).sum::<Option<f64>>();
    Score {
        value: scores.iter().map(|score| score.value).sum::<f64>() / count,
        stderr: sum(&|score| score.stderr.map(|x| x * x)).map(|sum| sum.sqrt() / count),
        chance: sum(&|score| score.chance).map(|sum| sum / count),
    }
}

/// The mean of `scores`, each of which counts as much as its number of documents, with the harness's pooled standard error.
pub fn mean_over_documents(scores: &[(Score, usize)]) -> Score {
    let documents: f64 = scores.iter().map(|(_, count)| *count as f64).sum();
    let weighted = |of: &dyn Fn(&Score) -> Option<f64>| {
        scores.iter().map(|(score, count)| Some(of(score)? * *count as f64)).sum::<Option<f64>>()
    };
    let pooled = |(score, count): &(Score, usize)| {
        let (stderr, count) = (score.stderr?, *count as f64);
        Some((count - 1.0) * stderr * stderr * count)
    };
    let pooled = scores.iter().map(pooled).sum::<Option<f64>>();
    let freedom = documents - scores.len() as f64;
    Score {
        value: weighted(&|score| Some(score.value)).unwrap_or_default() / documents,
        stderr: pooled.filter(|_| freedom > 0.0).map(|sum| (sum / freedom / documents).sqrt()),
        chance: weighted(&|score| score.chance).map(|sum| sum / documents),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(value: f64, stderr: f64) -> Score {
        Score { value, stderr: Some(stderr), chance: Some(0.25) }
    }

    /// `pooled_sample_stderr` and `aggregate_subtask_metrics` of lm-evaluation-harness 0.4.13.
    #[test]
    fn a_mean_over_documents_is_that_of_the_harness() {
        let pooled = mean_over_documents(&[(score(0.25, 0.043), 100), (score(0.5, 0.04), 150), (score(0.4, 0.06), 60)]);
        assert!((pooled.value - 124.0 / 310.0).abs() < 1e-12, "{}", pooled.value);
        assert!((pooled.stderr.unwrap() - POOLED).abs() < 1e-12, "{:?}", pooled.stderr);
        assert_eq!(pooled.chance, Some(0.25));
    }

    #[test]
    fn a_mean_of_members_counts_each_alike() {
        let mean = mean_of_members(&[score(0.2, 0.03), score(0.4, 0.04)]);
        assert!((mean.value - 0.3).abs() < 1e-12 && (mean.stderr.unwrap() - 0.025).abs() < 1e-12);
        let without = Score { stderr: None, ..score(0.5, 0.0) };
        assert_eq!(mean_of_members(&[score(0.2, 0.03), without]).stderr, None);
    }

    const POOLED: f64 = 0.026495235009278757;
}
