//! How far the logits of one model are from those of another.

use openelm_model::kernels::{Matrix, Threads, linear};
use openelm_model::{NotFinite, check_finite};

use crate::{FormatError, StoredModel, streamed};

/// Positions whose logits are in memory together.
const CHUNK: usize = 64;

/// The distance between the logits of two models on one text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Positions compared.
    pub positions: usize,
    /// Entries of the vocabulary compared: those that both have.
    pub vocabulary: usize,
    /// The largest absolute difference of two logits.
    pub max_difference: f32,
    /// The mean over the positions of the Kullback-Leibler divergence of the second distribution from the first, in nats.
    pub mean_kl: f64,
    /// The share of positions where both find the same token the most probable, 0 to 1.
    pub top1_agreement: f64,
    /// How surprised each model is by the text: exp of the mean negative log-likelihood of its tokens; 1 is not at all. None
    /// for a text of one token.
    pub perplexities: Option<[f64; 2]>,
}

/// What one position says.
#[derive(Clone, Copy, Default)]
struct Position {
    difference: f32,
    kl: f64,
    agree: bool,
    /// Negative log-likelihoods of the token that follows.
    surprise: Option<[f64; 2]>,
    /// The model whose logits are not finite, by its number.
    misfit: Option<(usize, NotFinite)>,
}

/// Runs both models over `ids`, in windows of the shorter context, and compares all logits. Of each model one layer at a time
/// is in memory, at the end both output projections.
///
/// # Errors
/// If there are no ids, an id is beyond a vocabulary, a tensor cannot be read, or a logit is infinite or no number: then there
/// is no distance.
pub fn compare(a: &StoredModel, b: &StoredModel, ids: &[u32], threads: &Threads) -> Result<Comparison, FormatError> {
    let vocabulary = a.config.vocab_size.min(b.config.vocab_size);
    if ids.is_empty() {
        return Err(FormatError::Inexpressible {
            reason: "there is nothing to compare on: the text is empty".to_owned(),
        });
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
        let reason = format!("token id {id} is out of range: the models have {vocabulary} tokens in common");
        return Err(FormatError::Inexpressible { reason });
    }
    let mut positions = Vec::new();
    for window in ids.chunks(a.config.context_length.min(b.config.context_length)) {
        window_positions([a, b], window, vocabulary, threads, &mut positions)?;
        let misfit = positions.iter().zip(1..).find_map(|(position, token)| Some((token, position.misfit?)));
        if let Some((token, (model, source))) = misfit {
            return Err(FormatError::Logits { path: [a, b][model].path.clone(), token, source });
        }
    }
    let count = positions.len() as f64;
    let mean = |f: fn(&Position) -> f64| positions.iter().map(f).sum::<f64>() / count;
    let surprises: Vec<[f64; 2]> = positions.iter().filter_map(|position| position.surprise).collect();
    let perplexity = |model: usize| {
        let sum: f64 = surprises.iter().map(|surprise| surprise[model]).sum();
        (sum / surprises.len() as f64).exp()
    };
    Ok(Comparison {
        positions: positions.len(),
        vocabulary,
        max_difference: positions.iter().fold(0.0, |largest, position| largest.max(position.difference)),
        mean_kl: mean(|position| position.kl),
        top1_agreement: mean(|position| f64::from(u8::from(position.agree))),
        perplexities: (!surprises.is_empty()).then(|| [perplexity(0), perplexity(1)]),
    })
}

fn window_positions(
    models: [&StoredModel; 2],
    ids: &[u32],
    vocabulary: usize,
    threads: &Threads,
    positions: &mut Vec<Position>,
) -> Result<(), FormatError> {
    let rows = [streamed::rows(models[0], ids, threads)?, streamed::rows(models[1], ids, threads)?];
    let heads = [streamed::head(models[0])?, streamed::head(models[1])?];
    for start in (0..ids.len()).step_by(CHUNK) {
        let end = ids.len().min(start + CHUNK);
        let logits = |model: usize| {
            let dim = models[model].config.model_dim;
            chunk_logits(&rows[model][start * dim..end * dim], heads[model].matrix(), dim, threads)
        };
        let (a, b) = (logits(0), logits(1));
        let (width_a, width_b) = (models[0].config.vocab_size, models[1].config.vocab_size);
        let first = positions.len();
        positions.resize(first + end - start, Position::default());
        threads.for_each_chunk(&mut positions[first..], 1, |i, position| {
            let (a, b) = (&a[i * width_a..][..vocabulary], &b[i * width_b..][..vocabulary]);
            position[0] = compared(a, b, ids.get(start + i + 1).copied());
        });
    }
    Ok(())
}

fn chunk_logits(rows: &[f32], head: Matrix<'_>, dim: usize, threads: &Threads) -> Vec<f32> {
    let mut logits = vec![0.0; rows.len() / dim * (head.len() / dim)];
    linear::forward(threads, &mut logits, rows, head, dim, false);
    logits
}

/// One position's logits `a` and `b`, and the token that follows.
fn compared(a: &[f32], b: &[f32], next: Option<u32>) -> Position {
    if let Some(misfit) = [a, b].iter().enumerate().find_map(|(i, logits)| Some((i, check_finite(logits).err()?))) {
        return Position { misfit: Some(misfit), ..Position::default() };
    }
    let (sum_a, sum_b) = (log_sum_exp(a), log_sum_exp(b));
    let mut position = Position { agree: most_probable(a) == most_probable(b), ..Position::default() };
    for (&x, &y) in a.iter().zip(b) {
        position.difference = position.difference.max((x - y).abs());
        let (log_p, log_q) = (f64::from(x) - sum_a, f64::from(y) - sum_b);
        position.kl += log_p.exp() * (log_p - log_q);
    }
    // Rounding may take it below zero, which it never is.
    position.kl = position.kl.max(0.0);
    position.surprise = next.map(|id| [sum_a - f64::from(a[id as usize]), sum_b - f64::from(b[id as usize])]);
    position
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    largest + logits.iter().map(|&x| (f64::from(x) - largest).exp()).sum::<f64>().ln()
}

/// The first of the largest logits.
fn most_probable(logits: &[f32]) -> usize {
    logits.iter().enumerate().fold(0, |best, (i, &x)| if x > logits[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divergence_is_that_of_the_formula() {
        // p = (1/2, 1/4, 1/4) and q = (1/4, 1/4, 1/2): KL = 1/2 ln 2 - 1/4 ln 2.
        let (a, b) = ([2f32.ln(), 0.0, 0.0], [0.0, 0.0, 2f32.ln()]);
        let position = compared(&a, &b, Some(2));
        assert!((position.kl - 0.25 * 2f64.ln()).abs() < 1e-7, "{}", position.kl);
        assert_eq!(position.difference, 2f32.ln());
        assert!(!position.agree);
        let surprise = position.surprise.unwrap();
        assert!((surprise[0] - 4f64.ln()).abs() < 1e-7 && (surprise[1] - 2f64.ln()).abs() < 1e-7);
        // A constant added to all logits changes no distribution.
        let shifted = compared(&a, &a.map(|x| x + 3.0), None);
        assert!(shifted.kl < 1e-7 && shifted.agree && shifted.surprise.is_none());
    }

    #[test]
    fn logits_that_are_not_finite_have_no_distance() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (sound, damaged) = ([1.0, 2.0, 3.0], [1.0, value, 3.0]);
            for (a, b, model) in [(damaged, sound, 0), (sound, damaged, 1), (damaged, damaged, 0)] {
                let (found, NotFinite { id, .. }) = compared(&a, &b, Some(0)).misfit.unwrap();
                assert_eq!((found, id), (model, 1));
            }
        }
        assert!(compared(&[f32::MAX, f32::MIN], &[f32::MIN, f32::MAX], None).misfit.is_none());
    }
}
