//! The learning rate of each step: CoreNet's cosine with warm-up.

use std::f64::consts::PI;

/// A linear rise over the warm-up, then half a cosine down to `min_lr`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Rate at step 0.
    pub warmup_init_lr: f64,
    /// Rate at the end of the warm-up.
    pub max_lr: f64,
    /// Rate that the cosine goes down to.
    pub min_lr: f64,
    /// Steps of the warm-up.
    pub warmup_steps: u64,
    /// Steps in all (CoreNet's `max_iterations`); the cosine ends one step later, as CoreNet's does.
    pub steps: u64,
}

impl Schedule {
    /// The rate at `step`, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        let Self { warmup_init_lr, max_lr, min_lr, warmup_steps, steps } = *self;
        if step < warmup_steps {
            let slope = (max_lr - warmup_init_lr) / warmup_steps as f64;
            return warmup_init_lr + step as f64 * slope;
        }
        let period = (steps - warmup_steps.min(steps) + 1) as f64;
        let phase = PI * (step - warmup_steps) as f64 / period;
        min_lr + 0.5 * (max_lr - min_lr) * (1.0 + phase.cos())
    }

    /// The rate at `step`, rounded to eight decimals as CoreNet hands it to the optimiser.
    pub fn rounded(&self, step: u64) -> f64 {
        // Through decimal digits, like Python's `round`: scaling by 1e8 would round the product, not the number.
        let digits = format!("{:.8}", self.rate(step));
        digits.parse().unwrap_or_else(|_| self.rate(step))
    }
}

#[cfg(test)]
mod tests {
    use openelm_testing::{golden, json};

    use super::*;

    #[test]
    fn rates_are_those_of_corenet() {
        let recipes = json(&golden("train/schedule.json"));
        for (name, recipe) in recipes.as_object().unwrap() {
            let number = |key: &str| recipe[key].as_f64().unwrap_or_else(|| panic!("{name} has no {key}"));
            let schedule = Schedule {
                warmup_init_lr: number("warmup_init_lr"),
                max_lr: number("max_lr"),
                min_lr: number("min_lr"),
                warmup_steps: number("warmup_iterations") as u64,
                steps: number("max_iterations") as u64,
            };
            for value in recipe["values"].as_array().unwrap() {
                let step = value["iteration"].as_u64().unwrap();
                let expected = value["get_lr"].as_f64().unwrap();
                let found = schedule.rate(step);
                assert!((found - expected).abs() <= 1e-12, "{name}, step {step}: {found} instead of {expected}");
                assert_eq!(
                    schedule.rounded(step),
                    value["lr_set_in_optimizer"].as_f64().unwrap(),
                    "{name}, step {step}"
                );
            }
        }
    }
}
