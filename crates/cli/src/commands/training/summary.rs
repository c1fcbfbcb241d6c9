//! What is left to read when a run has ended.

use std::collections::BTreeMap;
use std::time::Instant;

use indicatif::{HumanCount, HumanDuration};
use openelm_train::run::{Event, StepEntry};

/// What a new loss weighs in the smoothed one, once there are enough of them.
const SMOOTHING: f64 = 0.02;

/// The mean of the losses so far, the newer ones weighing more.
#[derive(Debug, Clone, Copy, Default)]
pub struct Smoothed {
    seen: u64,
    mean: f64,
}

impl Smoothed {
    /// Takes `loss` in; the mean with it.
    pub fn add(&mut self, loss: f64) -> f64 {
        self.seen += 1;
        let weight = (1.0 / self.seen as f64).max(SMOOTHING);
        self.mean += weight * (loss - self.mean);
        self.mean
    }

    pub fn mean(&self) -> f64 {
        self.mean
    }
}

/// The newest of each number that a run tells.
pub struct Summary {
    begun: Instant,
    last: Option<StepEntry>,
    smoothed: Smoothed,
    validation: BTreeMap<String, f64>,
}

impl Summary {
    pub fn new() -> Self {
        Self { begun: Instant::now(), last: None, smoothed: Smoothed::default(), validation: BTreeMap::new() }
    }

    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Step(entry) => {
                self.smoothed.add(entry.loss);
                self.last = Some(*entry);
            }
            Event::Validated(entry) => {
                self.validation.insert(entry.corpus.clone(), entry.validation_loss);
            }
            _ => {}
        }
    }

    /// A line, if an update was made.
    pub fn line(&self) -> Option<String> {
        let StepEntry { step, tokens, loss, .. } = self.last?;
        let on = self.validation.iter().map(|(corpus, loss)| format!(", {loss:.4} on {corpus}"));
        Some(format!(
            "step {step}: loss {loss:.4}, smoothed {:.4}{}; {} tokens in all, {} this time",
            self.smoothed.mean(),
            on.collect::<String>(),
            HumanCount(tokens),
            HumanDuration(self.begun.elapsed()),
        ))
    }
}
