//! A micro-batch of examples, and what is learnt from it.

use serde::{Deserialize, Serialize};

use super::preference::{Pair, PairLoss, Preference};
use crate::data::Batch;
use crate::objective::{Objective, TargetWeights, Weighed};

/// Sequences of which a part is learnt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lesson {
    pub(super) sequences: Batch,
    /// Whether each target is learnt, `[sequences, time]`.
    pub(super) learnt: Vec<bool>,
    /// The reference's log-probability of what is learnt in each sequence; empty where nobody asks.
    pub(super) reference: Vec<f64>,
}

/// An example as token ids, and whether each is learnt.
pub(super) type Tokens = [(u32, bool)];

impl Lesson {
    /// A sequence for each of `rows`, in each of which its examples stand behind each other and do not see each other. Shorter
    /// ones are filled up with what nobody learns.
    pub fn new(rows: &[Vec<&Tokens>], reference: Vec<f64>) -> Self {
        let length = |row: &Vec<&Tokens>| row.iter().map(|tokens| tokens.len().saturating_sub(1)).sum::<usize>();
        let time = rows.iter().map(length).max().unwrap_or(0);
        let count = rows.len() * time;
        let (mut inputs, mut targets) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let (mut learnt, mut starts) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (row, examples) in rows.iter().enumerate() {
            for tokens in examples {
                let begin = (inputs.len() - row * time) as u32;
                for pair in tokens.windows(2) {
                    inputs.push(pair[0].0);
                    targets.push(pair[1].0);
                    learnt.push(pair[1].1);
                    starts.push(begin);
                }
            }
            let (end, begin) = ((row + 1) * time, (inputs.len() - row * time) as u32);
            inputs.resize(end, 0);
            targets.resize(end, 0);
            learnt.resize(end, false);
            starts.resize(end, begin);
        }
        // What one example alone is filled up with comes behind it, where nobody looks.
        let shared = rows.iter().any(|examples| examples.len() > 1);
        let document_starts = shared.then_some(starts);
        let sequences = Batch { inputs, targets, document_starts, sequences: rows.len(), time };
        Self { sequences, learnt, reference }
    }

    /// Tokens that are learnt.
    pub fn amount(&self) -> usize {
        self.learnt.iter().filter(|learnt| **learnt).count()
    }

    /// For each sequence, the sum of what is learnt, and how many tokens that is.
    pub fn sums(&self, log_probabilities: &[f64]) -> Vec<(f64, f64)> {
        let time = self.sequences.time;
        let rows = log_probabilities.chunks(time).zip(self.learnt.chunks(time));
        let sum = |(row, learnt): (&[f64], &[bool])| {
            let learnt = row.iter().zip(learnt).filter(|(_, learnt)| **learnt);
            learnt.fold((0.0, 0.0), |(sum, count), (x, _)| (sum + x, count + 1.0))
        };
        rows.map(sum).collect()
    }
}

/// What is learnt from lessons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lessons {
    #[doc(hidden)]
    Answers { z_weight: f32 },
    #[doc(hidden)]
    Preferences(PreferenceObjective),
}

/// Which of two answers is better: sequences come in pairs, the better one first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreferenceObjective(pub(super) Preference);

impl PreferenceObjective {
    fn weigh(self, lesson: &Lesson, log_probabilities: &[f64]) -> Weighed {
        let sums = lesson.sums(log_probabilities);
        let pairs = sums.chunks_exact(2).enumerate().map(|(i, sides)| {
            let reference = lesson.reference.get(2 * i..2 * i + 2);
            let pair = Pair {
                policy: [sides[0].0, sides[1].0],
                reference: reference.map_or([0.0; 2], |reference| [reference[0], reference[1]]),
                lengths: [sides[0].1, sides[1].1],
            };
            self.0.of(&pair)
        });
        let pairs: Vec<PairLoss> = pairs.collect();
        let time = lesson.sequences.time;
        let weight = |(i, &learnt): (usize, &bool)| {
            // A cross-entropy is a log-probability turned around.
            let derivative = -pairs[i / time / 2].derivatives[i / time % 2];
            if learnt { derivative as f32 } else { 0.0 }
        };
        let weights = lesson.learnt.iter().enumerate().map(weight).collect();
        let sum = |of: &dyn Fn(&PairLoss) -> f64| pairs.iter().map(of).sum::<f64>();
        let metrics = vec![
            sum(&|pair| f64::from(u8::from(pair.rewards[0] > pair.rewards[1]))),
            sum(&|pair| pair.rewards[0] - pair.rewards[1]),
            sum(&|pair| pair.rewards[0]),
            sum(&|pair| pair.rewards[1]),
        ];
        Weighed { weights: TargetWeights::Each(weights), loss: Some(sum(&|pair| pair.loss)), metrics }
    }
}

impl Objective for Lessons {
    type Batch = Lesson;

    fn sequences<'b>(&self, lesson: &'b Lesson) -> &'b Batch {
        &lesson.sequences
    }

    fn amount(&self, lesson: &Lesson) -> f64 {
        match self {
            Self::Answers { .. } => lesson.amount() as f64,
            Self::Preferences(_) => (lesson.sequences.sequences / 2) as f64,
        }
    }

    fn weigh(&self, lesson: &Lesson, log_probabilities: &mut dyn FnMut() -> Vec<f64>) -> Weighed {
        match self {
            Self::Answers { .. } => {
                let weights = lesson.learnt.iter().map(|&learnt| f32::from(u8::from(learnt))).collect();
                Weighed::targets(TargetWeights::Each(weights))
            }
            Self::Preferences(objective) => objective.weigh(lesson, &log_probabilities()),
        }
    }

    fn metrics(&self) -> &'static [&'static str] {
        match self {
            Self::Answers { .. } => &[],
            Self::Preferences(_) => &["accuracy", "margin", "reward_chosen", "reward_rejected"],
        }
    }

    fn z_weight(&self) -> f32 {
        match self {
            Self::Answers { z_weight } => *z_weight,
            Self::Preferences(_) => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use openelm_formats::huggingface;
    use openelm_model::kernels::Threads;
    use openelm_testing::{golden, json};
    use serde_json::Value;

    use super::super::preference::PreferenceLoss;
    use super::*;
    use crate::parameters::Parameters;
    use crate::trainable::TrainableModel;
    use crate::trainer::{Trainer, TrainerOptions};

    fn ids(value: &Value) -> Vec<u32> {
        value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    }

    /// Prompt and answer, the answer learnt.
    fn tokens(prompt: &Value, answer: &Value) -> Vec<(u32, bool)> {
        let (prompt, answer) = (ids(prompt), ids(answer));
        prompt.into_iter().map(|id| (id, false)).chain(answer.into_iter().map(|id| (id, true))).collect()
    }

    fn policy() -> Trainer {
        let config = huggingface::read(&golden("tiny/hf")).unwrap().config;
        let bytes = std::fs::read(golden("dpo/policy_f16.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut parameters = Parameters::zeros(&config);
        for (spec, values) in parameters.tensors_mut() {
            let stored: Vec<f16> =
                bytemuck::pod_collect_to_vec(file.tensor(&format!("transformer.{}", spec.name)).unwrap().data());
            values.iter_mut().zip(stored).for_each(|(value, stored)| *value = stored.to_f32());
        }
        Trainer::new(TrainableModel::new(config, parameters).unwrap(), Threads::new(2), TrainerOptions::default())
    }

    fn near(found: f64, expected: f64, tolerance: f64, what: &str) {
        assert!(
            (found - expected).abs() <= tolerance * expected.abs().max(1e-3),
            "{what}: {found} instead of {expected}"
        );
    }

    #[test]
    fn losses_and_gradients_of_pairs_are_those_of_trl() {
        let expected = json(&golden("dpo/expected.json"));
        let rows = expected["rows"].as_array().unwrap();
        let sides: Vec<Vec<(u32, bool)>> = rows
            .iter()
            .flat_map(|row| [tokens(&row["prompt"], &row["chosen"]), tokens(&row["prompt"], &row["rejected"])])
            .collect();
        let of = |key: &str, i: usize| expected[key][i].as_f64().unwrap();
        let reference: Vec<f64> =
            (0..rows.len()).flat_map(|i| [of("ref_logps_chosen", i), of("ref_logps_rejected", i)]).collect();
        let sequences: Vec<Vec<&Tokens>> = sides.iter().map(|side| vec![&side[..]]).collect();
        let lesson = Lesson::new(&sequences, reference);
        let mut cases = 0;
        for case in expected["cases"].as_array().unwrap() {
            let (name, beta) = (case["loss_type"].as_str().unwrap(), case["beta"].as_f64().unwrap());
            let loss = match name {
                "sigmoid" => PreferenceLoss::Sigmoid,
                "hinge" => PreferenceLoss::Hinge,
                "ipo" => PreferenceLoss::Ipo,
                "ipo_sum" => PreferenceLoss::IpoSum,
                other => panic!("{other} is not known"),
            };
            let objective = Lessons::Preferences(PreferenceObjective(Preference { loss, beta, gamma: 0.0 }));
            let what = format!("{name}, beta {beta}");
            let report = policy().step(&objective, std::slice::from_ref(&lesson), 0.0).unwrap();
            let tolerance = if name.starts_with("ipo") { 1e-3 } else { 1e-4 };
            near(report.loss.mean(), case["loss"].as_f64().unwrap(), tolerance, &what);
            near(report.gradient_norm, case["grad_norm"].as_f64().unwrap(), 1e-3, &what);
            let accuracy = report.loss.metrics[0] / report.loss.amount;
            near(accuracy, case["rewards_accuracy"].as_f64().unwrap(), 1e-5, &what);
            cases += 1;
        }
        assert!(cases >= 4);
    }

    #[test]
    fn answers_are_learnt_as_a_masked_cross_entropy_is() {
        let expected = json(&golden("dpo/expected.json"));
        let rows = expected["rows"].as_array().unwrap();
        let examples: Vec<_> = rows.iter().map(|row| tokens(&row["prompt"], &row["chosen"])).collect();
        let alone: Vec<Vec<&Tokens>> = examples.iter().map(|example| vec![&example[..]]).collect();
        let sft = &expected["sft"];
        let objective = Lessons::Answers { z_weight: 0.0 };
        let step = |rows: &[Vec<&Tokens>]| policy().step(&objective, &[Lesson::new(rows, Vec::new())], 0.0).unwrap();
        let report = step(&alone);
        assert_eq!(report.loss.tokens as u64, sft["tokens"].as_u64().unwrap());
        near(report.loss.mean(), sft["loss"].as_f64().unwrap(), 1e-4, "alone");
        near(report.gradient_norm, sft["grad_norm"].as_f64().unwrap(), 1e-3, "alone");
        // Behind each other in one row they do not see each other.
        let packed = step(&[alone[..3].concat(), alone[3..].concat()]);
        assert_eq!(packed.loss.tokens, report.loss.tokens);
        near(packed.loss.mean(), report.loss.mean(), 1e-6, "packed");
        near(packed.gradient_norm, report.gradient_norm, 1e-5, "packed");
    }
}
