//! What is measured: of one document, of all of them, and how sure it is.

mod aggregate;
mod error_bars;

pub use aggregate::{Score, mean_of_members, mean_over_documents};
pub(crate) use aggregate::{deviation, mean};
pub use error_bars::{BOOTSTRAP, bootstrap};

use serde::{Deserialize, Serialize};

use crate::task::Rendered;

/// Something that is measured, with the name it has in a task's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Whether the most probable choice is the right one; of a single continuation, whether each of its tokens is the most probable.
    Acc,
    /// The same with log-likelihoods divided by the characters of the choice.
    AccNorm,
    /// The share of the true choices in the probability of all.
    Mc2,
    /// Distance of the log-likelihoods of two sentences, in nats.
    LikelihoodDiff,
    /// Whether the first of two sentences, the stereotype, is the more probable.
    PctStereotype,
    /// Perplexity of a continuation as a whole.
    Perplexity,
    /// Perplexity of a text, per word.
    WordPerplexity,
    /// Perplexity of a text, per byte of UTF-8.
    BytePerplexity,
    /// Bits that a byte of a text takes.
    BitsPerByte,
}

/// What a document gives for a metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number whose mean counts.
    Number(f64),
    /// A log-likelihood in nats, and what it is divided by.
    Weighted(f64, u64),
}

/// What the model says of a continuation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Logarithm of its probability, in nats.
    pub log_likelihood: f64,
    /// Whether each of its tokens is the most probable one.
    pub greedy: bool,
}

impl Metric {
    /// Its name in a task's file.
    pub fn key(self) -> &'static str {
        if self == Self::Mc2 { "mc2" } else { self.name() }
    }

    /// Its name in results, which is the harness's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acc | Self::Mc2 => "acc",
            Self::AccNorm => "acc_norm",
            Self::LikelihoodDiff => "likelihood_diff",
            Self::PctStereotype => "pct_stereotype",
            Self::Perplexity => "perplexity",
            Self::WordPerplexity => "word_perplexity",
            Self::BytePerplexity => "byte_perplexity",
            Self::BitsPerByte => "bits_per_byte",
        }
    }

    /// Whether it is measured on choices.
    pub(crate) fn is_of_choices(self) -> bool {
        matches!(self, Self::Acc | Self::AccNorm | Self::Mc2 | Self::LikelihoodDiff | Self::PctStereotype)
    }

    /// Whether it is measured on whole texts.
    pub(crate) fn is_of_text(self) -> bool {
        matches!(self, Self::WordPerplexity | Self::BytePerplexity | Self::BitsPerByte)
    }

    /// Whether it is a share between 0 and 1.
    pub fn is_share(name: &str) -> bool {
        matches!(name, "acc" | "acc_norm" | "pct_stereotype")
    }

    /// What `outcomes` of the continuations of `document` give.
    pub fn of(self, document: &Rendered, outcomes: &[Outcome]) -> Value {
        let likelihoods = || outcomes.iter().map(|outcome| outcome.log_likelihood);
        let truth = |holds: bool| Value::Number(f64::from(u8::from(holds)));
        let total = likelihoods().next().unwrap_or_default();
        let [words, bytes] = document.counted.map(|count| count as u64);
        match self {
            Self::Acc => match document.answer {
                Some(answer) => truth(largest(likelihoods()) == Some(answer)),
                None => truth(outcomes.iter().all(|outcome| outcome.greedy)),
            },
            Self::AccNorm => {
                let normalised = likelihoods().zip(&document.lengths).map(|(x, &length)| x / length as f64);
                truth(largest(normalised) == document.answer)
            }
            Self::Mc2 => {
                let probabilities: Vec<f64> = likelihoods().map(f64::exp).collect();
                let sum: f64 = probabilities.iter().sum();
                let labels = document.labels.iter().flatten();
                Value::Number(probabilities.iter().zip(labels).filter(|(_, label)| **label).map(|(p, _)| p / sum).sum())
            }
            Self::LikelihoodDiff => Value::Number(difference(outcomes).abs()),
            Self::PctStereotype => truth(difference(outcomes) > 0.0),
            Self::Perplexity => Value::Number(total),
            Self::WordPerplexity => Value::Weighted(total, words),
            Self::BytePerplexity | Self::BitsPerByte => Value::Weighted(total, bytes),
        }
    }

    /// What somebody who guesses gets on `document`, if that can be said.
    pub fn chance(self, document: &Rendered) -> Option<f64> {
        let choices = document.continuations.len() as f64;
        match self {
            Self::Acc | Self::AccNorm => document.answer.map(|_| 1.0 / choices),
            Self::Mc2 => Some(document.labels.iter().flatten().filter(|label| **label).count() as f64 / choices),
            Self::PctStereotype => Some(0.5),
            _ => None,
        }
    }
}

/// The place of the largest value; of equal ones the first. What is no number is the largest, as in numpy.
fn largest(values: impl Iterator<Item = f64>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (place, value) in values.enumerate() {
        if best.is_none_or(|(_, best)| value > best || (value.is_nan() && !best.is_nan())) {
            best = Some((place, value));
        }
    }
    best.map(|(place, _)| place)
}

/// Log-likelihood of the first less that of the second.
fn difference(outcomes: &[Outcome]) -> f64 {
    match outcomes {
        [first, second, ..] => first.log_likelihood - second.log_likelihood,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(answer: usize, lengths: &[usize]) -> Rendered {
        Rendered {
            contexts: vec![String::new(); lengths.len()],
            continuations: vec![String::new(); lengths.len()],
            lengths: lengths.to_vec(),
            answer: Some(answer),
            labels: Some(vec![true, false, true]),
            counted: [3, 12],
            is_text: false,
        }
    }

    fn outcomes(values: &[f64]) -> Vec<Outcome> {
        values.iter().map(|&log_likelihood| Outcome { log_likelihood, greedy: false }).collect()
    }

    #[test]
    fn the_first_of_equal_choices_wins_and_lengths_decide_the_normalised_one() {
        let outcomes = outcomes(&[-4.0, -4.0, -6.0]);
        assert_eq!(Metric::Acc.of(&document(0, &[1, 1, 1]), &outcomes), Value::Number(1.0));
        assert_eq!(Metric::Acc.of(&document(1, &[1, 1, 1]), &outcomes), Value::Number(0.0));
        assert_eq!(Metric::AccNorm.of(&document(2, &[4, 4, 12]), &outcomes), Value::Number(1.0));
        assert_eq!(largest([1.0, f64::NAN, 2.0].into_iter()), Some(1));
    }

    #[test]
    fn mc2_is_the_share_of_the_true_ones() {
        let outcomes = outcomes(&[0.1f64.ln(), 0.3f64.ln(), 0.2f64.ln()]);
        let Value::Number(share) = Metric::Mc2.of(&document(0, &[1, 1, 1]), &outcomes) else { panic!("a number") };
        assert!((share - 0.5).abs() < 1e-12);
        assert_eq!(Metric::Mc2.chance(&document(0, &[1, 1, 1])), Some(2.0 / 3.0));
    }
}
