//! A run as lines, for files and pipes; the dashboard shows the rarer ones too.

use std::time::{Duration, Instant};

use indicatif::HumanDuration;
use openelm_train::run::Event;

use crate::tell;

/// Time between two lines on how far work before the run is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints lines to standard error.
pub struct Lines {
    every: u64,
    clock: Clock,
    /// When it was last told how far work before the run is.
    said: Option<Instant>,
}

impl Lines {
    pub fn new(every: u64) -> Self {
        Self { every, clock: Clock::new(), said: None }
    }

    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Started { step, steps, .. } => self.clock.start(*step, *steps),
            Event::Preparing { what, done, of } if self.said.is_none_or(|said| said.elapsed() > PATIENCE) => {
                let of = of.map_or_else(String::new, |of| format!(" of {of}"));
                tell(format!("{what}: {done}{of}"));
                self.said = Some(Instant::now());
            }
            Event::Step(entry) if entry.step % self.every == 0 => tell(format!(
                "step {} of {}  loss {:.3}  lr {:.2e}  norm {:.2}  epoch {}  {:.0} tokens/s  {} left",
                entry.step,
                self.clock.steps,
                entry.loss,
                entry.lr,
                entry.gradient_norm,
                entry.epoch,
                entry.tokens_per_second,
                HumanDuration(self.clock.left(entry.step)),
            )),
            _ => {}
        }
        event.described().iter().for_each(tell);
    }
}

/// How long the rest of a run will take, by the mean since its start: updates are all alike.
pub struct Clock {
    pub steps: u64,
    first: u64,
    started: Instant,
}

impl Clock {
    pub fn new() -> Self {
        Self { steps: 0, first: 0, started: Instant::now() }
    }

    /// Begins to measure at `step` of `steps`.
    pub fn start(&mut self, step: u64, steps: u64) {
        *self = Self { steps, first: step, started: Instant::now() };
    }

    pub fn left(&self, step: u64) -> Duration {
        let made = step.saturating_sub(self.first).max(1);
        self.started.elapsed().div_f64(made as f64).mul_f64(self.steps.saturating_sub(step) as f64)
    }
}
