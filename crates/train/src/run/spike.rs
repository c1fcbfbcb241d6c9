//! When a loss that rises is more than noise.

use serde::{Deserialize, Serialize};

use crate::recipe::SpikeRecipe;

/// Updates that the smoothed loss remembers.
const MEMORY: f64 = 100.0;
/// Updates before anything is judged: the first losses fall too fast to know what is usual.
const WARM_UP: u64 = 50;
/// Smallest standard deviation in nats that counts as one; less is what a corpus of one sentence gives.
const SMALLEST_DEVIATION: f64 = 0.01;

/// Mean and variance of the losses so far, the older ones forgotten exponentially.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SpikeDetector {
    seen: u64,
    mean: f64,
    variance: f64,
    /// Losses in a row that were too high.
    above: u64,
}

impl SpikeDetector {
    /// Takes in the loss of an update; says whether it is the last of as many spikes in a row as stop a run. Spikes do not
    /// count towards what is usual.
    pub(super) fn observe(&mut self, loss: f64, recipe: &SpikeRecipe) -> bool {
        let watches = recipe.deviations > 0.0 && self.seen >= WARM_UP;
        if watches && loss > self.mean + recipe.deviations * self.deviation() {
            self.above += 1;
            return self.stopped(recipe);
        }
        self.above = 0;
        self.seen += 1;
        let weight = (1.0 / self.seen as f64).max(1.0 / MEMORY);
        let delta = loss - self.mean;
        self.mean += weight * delta;
        self.variance = (1.0 - weight) * (self.variance + weight * delta * delta);
        false
    }

    /// Whether the loss observed last stops a run.
    fn stopped(&self, recipe: &SpikeRecipe) -> bool {
        self.above >= recipe.updates
    }

    /// The smoothed loss.
    pub(super) fn mean(&self) -> f64 {
        self.mean
    }

    /// The standard deviation of the losses around it.
    pub(super) fn deviation(&self) -> f64 {
        self.variance.sqrt().max(SMALLEST_DEVIATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(detector: &mut SpikeDetector, recipe: &SpikeRecipe, updates: u64) {
        for i in 0..updates {
            // Alternating by 0.1 around 3: the standard deviation is 0.1.
            let loss = 3.0 + if i % 2 == 0 { 0.1 } else { -0.1 };
            assert!(!detector.observe(loss, recipe));
        }
    }

    #[test]
    fn only_spikes_in_a_row_stop_a_run() {
        let recipe = SpikeRecipe { deviations: 5.0, updates: 2 };
        let mut detector = SpikeDetector::default();
        usual(&mut detector, &recipe, 200);
        assert!((detector.mean() - 3.0).abs() < 0.01 && (detector.deviation() - 0.1).abs() < 0.01, "{detector:?}");
        assert!(!detector.observe(3.6, &recipe), "the first");
        usual(&mut detector, &recipe, 1);
        assert!(!detector.observe(3.6, &recipe), "the first again");
        assert!(detector.observe(3.6, &recipe), "the second in a row");
    }

    #[test]
    fn spikes_are_let_through_while_nothing_is_known_and_where_nobody_asked() {
        let recipe = SpikeRecipe { deviations: 5.0, updates: 1 };
        assert!(!SpikeDetector::default().observe(100.0, &recipe));
        let mut detector = SpikeDetector::default();
        let off = SpikeRecipe::default();
        usual(&mut detector, &off, 200);
        assert!((0..10).all(|_| !detector.observe(100.0, &off)));
    }
}
