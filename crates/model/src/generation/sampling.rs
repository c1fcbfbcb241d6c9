//! From logits to the next token: penalties, temperature, filters, a draw.

use std::cmp::Ordering;
use std::collections::HashSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How a token is drawn. The steps follow each other in the order of the fields, as in Hugging Face's `transformers`.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingOptions {
    /// Divides positive and multiplies negative logits of tokens that were there before (Keskar et al., "CTRL", 2019); 1
    /// changes nothing.
    pub repetition_penalty: f32,
    /// No sequence of that many tokens comes twice; 0 allows all.
    pub no_repeat_ngram: usize,
    /// Divides the logits; towards 0 the most probable token is always taken, and at 0 the first of several.
    pub temperature: f32,
    /// Keeps that many of the most probable tokens, and those equal to the last of them; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest most probable tokens that together reach this probability; 1 keeps all (Holtzman et al., 2020).
    pub top_p: f32,
    /// Keeps tokens at least this probable relative to the most probable one; 0 keeps all (Nguyen et al., 2024).
    pub min_p: f32,
    /// Decides the draws.
    pub seed: u64,
}

impl Default for SamplingOptions {
    /// Plain sampling from the model's own distribution.
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            no_repeat_ngram: 0,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
        }
    }
}

/// An option out of range.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{what} is {value}; it must be {expected}")]
pub struct SamplingError {
    /// Name of the option.
    pub what: &'static str,
    /// Its value.
    pub value: f32,
    /// What it should be.
    pub expected: &'static str,
}

/// Logits that say nothing: a model that is damaged, or computes beyond the range of its numbers.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error(
    "the model's logits are not finite: that of token {id} is {value}; its weights are damaged, or too large for how it computes"
)]
pub struct NotFinite {
    /// The first token whose logit it is.
    pub id: u32,
    /// Infinity or NaN.
    pub value: f32,
}

/// Refuses logits of which one is infinite or no number.
///
/// # Errors
/// The first that is.
pub fn check_finite(logits: &[f32]) -> Result<(), NotFinite> {
    match logits.iter().zip(0..).find(|(value, _)| !value.is_finite()) {
        Some((&value, id)) => Err(NotFinite { id, value }),
        None => Ok(()),
    }
}

impl SamplingOptions {
    /// Checks that every option is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let Self { repetition_penalty, temperature, top_p, min_p, .. } = *self;
        let positive = repetition_penalty > 0.0 && repetition_penalty.is_finite();
        let checks = [
            (positive, "repetition penalty", repetition_penalty, "a positive number"),
            (temperature >= 0.0 && temperature.is_finite(), "temperature", temperature, "0 or more"),
            (top_p > 0.0 && top_p <= 1.0, "top-p", top_p, "above 0 and at most 1"),
            ((0.0..=1.0).contains(&min_p), "min-p", min_p, "between 0 and 1"),
        ];
        match checks.into_iter().find(|(ok, ..)| !ok) {
            Some((_, what, value, expected)) => Err(SamplingError { what, value, expected }),
            None => Ok(()),
        }
    }
}

/// The logarithm of the probability that `logits`, `[vocabulary]`, give the token `id`.
pub fn log_probability(logits: &[f32], id: u32) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    (f64::from(logits[id as usize] - largest) - total.ln()) as f32
}

/// Draws tokens.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplingOptions,
    random: ChaCha8Rng,
    /// The logits after the penalties: in double precision, where the smallest penalty does not make them infinite.
    penalised: Vec<f64>,
    /// How far they are below the highest, in units of the temperature; what is filtered out is at minus infinity.
    scores: Vec<f32>,
    /// Ids in the order of the penalised logits, for the filters.
    order: Vec<u32>,
}

impl Sampler {
    /// A sampler at the beginning of its seed's sequence of draws.
    ///
    /// # Errors
    /// If an option is out of range.
    pub fn new(options: SamplingOptions) -> Result<Self, SamplingError> {
        options.validate()?;
        let random = ChaCha8Rng::seed_from_u64(options.seed);
        Ok(Self { options, random, penalised: Vec::new(), scores: Vec::new(), order: Vec::new() })
    }

    /// The next token behind `history`, prompt and output, given the `logits` of the vocabulary.
    ///
    /// # Errors
    /// If a logit is not finite: nothing can be drawn from those.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32, NotFinite> {
        check_finite(logits)?;
        if self.options.temperature == 0.0 {
            self.penalise(logits, history);
            return Ok(most_probable(&self.penalised));
        }
        let probabilities = self.probabilities(logits, history);
        let total: f64 = probabilities.iter().map(|&p| f64::from(p)).sum();
        let draw = self.random.random::<f64>() * total;
        let mut sum = 0.0;
        let mut last = 0;
        for (id, &p) in probabilities.iter().enumerate().filter(|(_, p)| **p > 0.0) {
            sum += f64::from(p);
            last = id;
            if draw < sum {
                break;
            }
        }
        Ok(last as u32)
    }

    /// What tokens are drawn with, `[vocabulary]`: penalties, temperature and filters applied. At temperature 0 the
    /// temperature is left out.
    pub fn probabilities(&mut self, logits: &[f32], history: &[u32]) -> Vec<f32> {
        self.penalise(logits, history);
        let SamplingOptions { temperature, top_k, top_p, min_p, .. } = self.options;
        let temperature = if temperature == 0.0 { 1.0 } else { f64::from(temperature) };
        // Before the division, which could make several of them infinite.
        let highest = highest(&self.penalised);
        let score = |x: &f64| if highest == f64::NEG_INFINITY { *x } else { (x - highest) / temperature };
        self.scores.clear();
        self.scores.extend(self.penalised.iter().map(|x| score(x) as f32));
        if (top_k > 0 && top_k < logits.len()) || top_p < 1.0 {
            self.sort();
        }
        if top_k > 0 && top_k < logits.len() {
            let least = self.penalised[self.order[top_k - 1] as usize];
            for (score, _) in self.scores.iter_mut().zip(&self.penalised).filter(|(_, x)| **x < least) {
                *score = f32::NEG_INFINITY;
            }
        }
        if top_p < 1.0 {
            let probabilities = softmax(&self.scores);
            let mut sum = 0.0;
            for &id in &self.order {
                if sum >= top_p {
                    self.scores[id as usize] = f32::NEG_INFINITY;
                }
                sum += probabilities[id as usize];
            }
        }
        let mut probabilities = softmax(&self.scores);
        if min_p > 0.0 {
            let least = min_p * probabilities.iter().copied().fold(0.0, f32::max);
            for (score, p) in self.scores.iter_mut().zip(&probabilities) {
                if *p < least {
                    *score = f32::NEG_INFINITY;
                }
            }
            probabilities = softmax(&self.scores);
        }
        probabilities
    }

    /// Fills `penalised` with `logits` after the penalties.
    fn penalise(&mut self, logits: &[f32], history: &[u32]) {
        self.penalised.clear();
        self.penalised.extend(logits.iter().map(|&logit| f64::from(logit)));
        let SamplingOptions { repetition_penalty, no_repeat_ngram, .. } = self.options;
        let penalty = f64::from(repetition_penalty);
        if penalty != 1.0 {
            for id in history.iter().collect::<HashSet<_>>() {
                if let Some(score) = self.penalised.get_mut(*id as usize) {
                    *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
                }
            }
        }
        if no_repeat_ngram > 0 && history.len() + 1 >= no_repeat_ngram {
            let begun = &history[history.len() + 1 - no_repeat_ngram..];
            for ngram in history.windows(no_repeat_ngram).filter(|ngram| ngram.starts_with(begun)) {
                if let Some(score) = self.penalised.get_mut(ngram[no_repeat_ngram - 1] as usize) {
                    *score = f64::NEG_INFINITY;
                }
            }
        }
    }

    /// Brings `order` into the order of the penalised logits, the highest first; equal ones by id.
    fn sort(&mut self) {
        self.order.clear();
        self.order.extend(0..self.penalised.len() as u32);
        let score = |id: u32| self.penalised[id as usize];
        self.order.sort_unstable_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
    }
}

/// The id of the highest score, the first of several.
fn most_probable(scores: &[f64]) -> u32 {
    let highest = scores.iter().enumerate().max_by(|(i, a), (j, b)| match a.total_cmp(b) {
        Ordering::Equal => j.cmp(i),
        unequal => unequal,
    });
    highest.map_or(0, |(id, _)| id as u32)
}

fn highest(scores: &[f64]) -> f64 {
    scores.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn softmax(scores: &[f32]) -> Vec<f32> {
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if highest == f32::NEG_INFINITY {
        // Everything is forbidden: then nothing is.
        return vec![1.0 / scores.len() as f32; scores.len()];
    }
    let mut values: Vec<f32> = scores.iter().map(|score| (score - highest).exp()).collect();
    let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
    values.iter_mut().for_each(|value| *value = (f64::from(*value) / sum) as f32);
    values
}

#[cfg(test)]
mod tests {
    use openelm_testing::{golden, max_difference, npz};

    use super::*;

    /// Options from a name such as `temperature_0.8_top_k_20_top_p_0.95`; `None` for filters that we do not have.
    fn options(name: &str) -> Option<SamplingOptions> {
        let mut options = SamplingOptions::default();
        let mut key = String::new();
        for part in name.split('_') {
            let Ok(value) = part.parse::<f32>() else {
                key.push_str(part);
                continue;
            };
            match key.as_str() {
                "temperature" => options.temperature = value,
                "topk" => options.top_k = value as usize,
                "topp" => options.top_p = value,
                "minp" => options.min_p = value,
                "repetitionpenalty" => options.repetition_penalty = value,
                "norepeatngram" => options.no_repeat_ngram = value as usize,
                _ => return None,
            }
            key.clear();
        }
        Some(options)
    }

    #[test]
    fn probabilities_are_those_of_transformers() {
        let arrays = npz(&golden("generate/processors.npz"));
        let history: Vec<u32> = arrays["history"].ids();
        let mut compared = 0;
        for (key, expected) in &arrays {
            let (logits, name) = match (key.strip_suffix(".probs"), key.strip_prefix("ties.")) {
                (Some(name), _) => ("logits", name),
                (_, Some(name)) if name != "logits" => ("ties.logits", name),
                _ => continue,
            };
            let Some(options) = options(name) else { continue };
            let mut sampler = Sampler::new(options).unwrap();
            let found = sampler.probabilities(&arrays[logits].f32(), &history);
            if key == "ties.top_p_0.5" {
                // Which of several equals go is the sorting's choice; how many is not.
                let kept = |values: &[f32]| values.iter().filter(|p| **p > 0.0).count();
                assert_eq!(kept(&found), kept(&expected.f32()));
                continue;
            }
            let difference = max_difference(&found, &expected.f32());
            assert!(difference <= 1e-5, "{key}: {difference}");
            compared += 1;
        }
        assert!(compared >= 15, "only {compared} cases");
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        let logits = [1.0, 2.0, 0.5, -1.0];
        let options = SamplingOptions { seed: 5, ..SamplingOptions::default() };
        let mut sampler = Sampler::new(options.clone()).unwrap();
        let expected = sampler.probabilities(&logits, &[]);
        let draws: Vec<u32> = (0..20_000).map(|_| sampler.sample(&logits, &[]).unwrap()).collect();
        for (id, &p) in expected.iter().enumerate() {
            let share = draws.iter().filter(|&&draw| draw == id as u32).count() as f32 / draws.len() as f32;
            assert!((share - p).abs() < 0.015, "{id}: {share} instead of {p}");
        }
        let mut again = Sampler::new(options).unwrap();
        assert!(draws.iter().all(|&draw| draw == again.sample(&logits, &[]).unwrap()));
    }

    #[test]
    fn options_out_of_range_are_named() {
        let refused = |change: fn(&mut SamplingOptions)| {
            let mut options = SamplingOptions::default();
            change(&mut options);
            Sampler::new(options).unwrap_err().to_string()
        };
        assert!(refused(|o| o.temperature = -1.0).contains("temperature is -1"));
        assert!(refused(|o| o.top_p = 0.0).contains("top-p is 0"));
        assert!(refused(|o| o.min_p = 2.0).contains("min-p"));
        assert!(refused(|o| o.repetition_penalty = f32::NAN).contains("repetition penalty"));
    }

    #[test]
    fn forbidding_everything_still_gives_a_token() {
        let options = SamplingOptions { no_repeat_ngram: 1, ..SamplingOptions::default() };
        let id = Sampler::new(options).unwrap().sample(&[0.0, 1.0], &[0, 1]);
        assert!(id.unwrap() < 2);
    }

    #[test]
    fn towards_temperature_0_the_draw_is_greedy() {
        let logits = [1.0, 3.0, -2.0, 2.999];
        for temperature in [1e-6, 1e-30, 1e-38, 1e-40, f32::from_bits(1)] {
            for (top_k, top_p, min_p) in [(0, 1.0, 0.0), (2, 1.0, 0.0), (0, 0.9, 0.0), (3, 0.5, 0.1)] {
                let options = SamplingOptions { temperature, top_k, top_p, min_p, ..SamplingOptions::default() };
                let mut sampler = Sampler::new(options).unwrap();
                assert_eq!(sampler.probabilities(&logits, &[]), [0.0, 1.0, 0.0, 0.0], "{temperature}");
                assert!((0..50).all(|_| sampler.sample(&logits, &[]) == Ok(1)), "{temperature}");
            }
        }
    }

    #[test]
    fn the_smallest_penalty_leaves_an_order_among_what_was_there() {
        for repetition_penalty in [1e-20, 1e-38, f32::from_bits(1)] {
            for temperature in [0.0, 1e-38, 1.0] {
                let options = SamplingOptions { repetition_penalty, temperature, ..SamplingOptions::default() };
                let mut sampler = Sampler::new(options).unwrap();
                // The highest of those that were there, not the first of them.
                assert_eq!(sampler.sample(&[5.0, 1.0, 2.0, -1.0], &[1, 2, 3]), Ok(2), "{repetition_penalty}");
            }
        }
    }

    #[test]
    fn logits_that_are_not_finite_are_refused() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for temperature in [0.0, 0.8] {
                let options = SamplingOptions { temperature, ..SamplingOptions::default() };
                let refused = Sampler::new(options).unwrap().sample(&[0.0, 1.0, value, 2.0], &[]).unwrap_err();
                assert_eq!(refused.id, 2);
                assert!(refused.to_string().contains(&format!("token 2 is {value}")), "{refused}");
            }
        }
    }
}
